# "nginx -t", "-T" and "-s" start nothing, contact nobody and leave nothing
# behind, also while an nginx with the same configuration runs.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
$t->netmap('web.json', self => $web, peers => [$alice]);

my $text = <<'EOF';
worker_processes 1;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    upstream app {
        tailnet_server alice:8080;
    }
    server {
        tailnet_listen 80;
        tailnet_listen 443;
        tailnet_acl accept *;
        root %%TESTDIR%%/html;
        location /app {
            proxy_pass http://app;
        }
    }
}
EOF
my $file = $t->write_config($text);
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

# All there is of the test's: processes, network namespaces that somebody is
# in, sockets of the host, files below its directory.
sub census () {
    my %ns = map { readlink("/proc/$_/ns/net") => 1 } $t->own_pids;
    # What waits in a queue is not of interest.
    my $sockets = $t->run_in('host', 'ss', '-anH', '-tuwx')->{stdout}
        =~ s/^(\S+\s+\S+)\s+\d+\s+\d+/$1/mgr;
    my $dir = $t->testdir;
    # The test's own runs leave their output, nginx what it does without us.
    my @files = grep { !m{/run\d+\.|_temp\z|\.log\z|/nginx\.pid\z} }
        split /\n/, `find $dir -print | sort`;
    return {
        processes => [sort $t->own_pids],
        namespaces => [sort keys %ns],
        # Connections of other tests' unix sockets come and go.
        sockets => [sort grep { /\Q$dir\E|^(?:tcp|udp)/ } split /\n/,
            $sockets],
        files => \@files,
    };
}

# nginx under strace: what it would have used to reach somebody, or to start
# something.
my $strace = grep { -x "$_/strace" } split /:/, $ENV{PATH};

sub command (@args) {
    my $trace = $t->testdir . '/strace.log';
    my @strace = $strace ? ('strace', '-f', '-qq', '-o', $trace, '-e',
        'trace=connect,bind,socket,fork,vfork,clone,clone3,execve,unshare,'
            . 'setns') : ();
    # Where it is traced, the leak check of a sanitizer cannot work.
    local $ENV{ASAN_OPTIONS} = join ':', $ENV{ASAN_OPTIONS} // (),
        'detect_leaks=0';
    my $r = $t->run_in('host', @strace, $t->binary('nginx'), '-p',
        $t->testdir . '/', '-c', $file, '-e', $t->testdir . '/test.log',
        @args);
    # execve() of nginx itself; look-ups of users may ask nscd.
    $r->{calls} = [grep { !/execve\(|nscd|_temp"|AF_NETLINK/ && /\(/ }
        split /\n/, Test::Tailnet::Process::slurp($trace)];
    $r->{calls} = [grep { !/socket\(AF_UNIX/ } $r->{calls}->@*]
        if !grep { /AF_UNIX.*sun_path/ } $r->{calls}->@*;
    unlink $trace;
    return $r;
}

sub quiet ($what, @args) {
    my $before = census();
    my $r = command(@args);
    ok($r->{ok}, "$what: succeeds") or diag($r->{output});
    is_deeply(census(), $before, "$what: leaves nothing behind");
  SKIP: {
        skip 'no strace', 1 if !$strace;
        is(join("\n", $r->{calls}->@*), '', "$what: contacts nobody");
    }
    return $r;
}

sub refused ($what) {
    my $before = census();
    my $r = command('-t');
    ok(!$r->{ok}, "$what: fails");
    is_deeply(census(), $before, "$what: leaves nothing behind");
    return $r->{output};
}

quiet('-t without nginx', '-t');
like(quiet('-T without nginx', '-T')->{output}, qr/tailnet_listen 443/,
    'and shows the configuration');

# A test finds mistakes without help.
$t->write_config($text =~ s/tailnet_listen 80/tailnet_listen nowhere:80/r);
like(refused('-t of a bad file'), qr/unknown tailnet_node "nowhere"/,
    'it says what');
$t->write_config($text);

$t->run;
$t->start_wgpeer($alice, peers => [$web]);
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200, 'nginx serves');
my @tailnetd = ($t->holder, $t->engine);
my $mark = $t->log_mark;
quiet('-t beside nginx', '-t');
quiet('-T beside nginx', '-T');
is($t->log_since($mark), '', 'nginx and tailnetd noticed nothing');
quiet('-s reopen', '-s', 'reopen');

# The signaller only signals; what follows is the master's doing.
$mark = $t->log_mark;
my $r = command('-s', 'reload');
ok($r->{ok}, '-s reload: succeeds');
is(join("\n", $r->{calls}->@*), '', '-s reload: contacts nobody')
    if $strace;
ok($t->wait_for_log(qr/gracefully shutting down/, 5, from => $mark),
    'nginx reloads');
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200, 'and serves');
is_deeply([$t->holder, $t->engine], \@tailnetd, 'with the same tailnetd');

my $master = $t->master;
$r = command('-s', 'quit');
ok($r->{ok}, '-s quit: succeeds');
is(join("\n", $r->{calls}->@*), '', '-s quit: contacts nobody') if $strace;
ok($t->wait_gone(10, $master, @tailnetd), 'nginx ends, and tailnetd');
delete $t->{master};

$t->done_testing;
