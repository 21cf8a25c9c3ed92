package Test::Tailnet::App;

# Applications behind nginx: HTTP servers on hosts of a test that say who they
# are and which of their connections was used.

use v5.36;

use Exporter qw(import);

use Test::Tailnet::Process;

our @EXPORT_OK = qw(start_app ask_many);

# start_app(t, who, options): a plain nginx, without the module, on port 8000
# of a host, IPv4 and IPv6.  It answers "NAME CONNECTION REQUEST", REQUEST the
# number of this one on its connection.  Options:
#   name    what it calls itself (who)
#   port    8000
#   listen  more words for "listen", such as "ssl"
#   server  more lines for its server block
#   answer  what "location /" does instead
# Returns its Test::Tailnet::Process.
sub start_app ($t, $who, %o) {
    my $name = $o{name} // $who;
    my $port = $o{port} // 8000;
    my $base = $t->testdir . "/app-$name-$port";
    my $answer = $o{answer}
        // "return 200 \"$name \$connection \$connection_requests\\n\";";
    my $listen = join ' ', grep { defined } $port, $o{listen};

    mkdir $base;
    unlink "$base/pid";
    $t->write_file("app-$name-$port.conf", <<"EOF");
daemon off; worker_processes 1; user root; pid $base/pid;
error_log $base.log info;
events { }
http {
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path $base/body; proxy_temp_path $base/proxy;
    fastcgi_temp_path $base/fastcgi; uwsgi_temp_path $base/uwsgi;
    scgi_temp_path $base/scgi;
    server {
        listen $listen;
        listen [::]:$listen;
        @{[$o{server} // '']}
        location / { $answer }
    }
}
EOF
    my $proc = $t->spawn($who, [$t->binary('nginx'), '-p', "$base/", '-e',
        "$base.log", '-c', "$base.conf"], name => "app-$name-$port");
    Test::Tailnet::Process::until_true(5,
        sub { -s "$base/pid" || !$proc->alive });
    die "app $name: " . $proc->stderr if !$proc->alive;
    return $proc;
}

# ask_many(t, who, url, n): n requests over one client connection; the lines of
# all answers.
sub ask_many ($t, $who, $url, $n) {
    my $r = $t->run_in($who, 'curl', '-q', '-sS', '--noproxy', '*',
        '--max-time', '20', "$url?[1-$n]");
    return split /\n/, $r->{stdout};
}

1;
