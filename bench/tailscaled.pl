# tailscaled.pl [--rounds N] [--seconds N]: this module beside what one would
# use without it, with Tailscale's own tailscaled as the client.
#
# Four servers of one tailnet, on a host each:
#
#   module      nginx with this module: identity, tailnet_acl, tailnet_limit_req
#   tailscaled  tailscaled on a TUN, plain nginx; nobody asks who it is
#   nginx-auth  the same, and auth_request to Tailscale's nginx-auth
#   serve       tailscaled with "tailscale serve --http", plain nginx behind
#
# All ends share the machine's CPUs, load generator included; read the ratios.

use v5.36;

use FindBin;
use lib $FindBin::Bin, "$FindBin::Bin/../t/lib";

use Bench;
use File::Path qw(remove_tree);
use Test::Tailnet;
use Time::HiRes qw(time);

use constant JOIN => 20; # s, to log in and to be known

my ($rounds, $seconds) = options(@ARGV);
$ENV{TAILNET_NO_SKIP} = 1;
my $t = Test::Tailnet->new(needs => [qw(nginx module tailnetd tailnetctl
    control tailscaled tailscale nginx_auth)]);

my @ways = qw(module tailscaled nginx-auth serve);
my %host = (module => 'host', tailscaled => 'plain', 'nginx-auth' => 'auth',
    serve => 'serve');
my %way = map {
    $_ => { who => 'client', name => "$host{$_}.tailnet.test" }
} @ways;
my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'],
        Reusable => \1 },
    { Key => 'key-alice', User => 'alice@example.com' }]);

# ---- four servers ----

html($t);
my ($http, $rules) = (HTTP, RULES);
$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOF", log_level => 'notice');
worker_processes 1;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node module {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/state;
    tags         tag:web;
    port         41641;
}
events { worker_connections 2048; }
http {
$http
    server {
        tailnet_listen 80;
        location / {
            root %%TESTDIR%%/html;
$rules
        }
    }
}
EOF

# As the README of nginx-auth has it.
my %plain = (
    tailscaled => 'server { listen 80; root %%TESTDIR%%/html; }',
    'nginx-auth' => <<'EOF',
    server {
        listen 80;
        location = /auth {
            internal;
            proxy_pass http://unix:%%TESTDIR%%/nginx-auth.sock;
            proxy_pass_request_body off;
            proxy_set_header Host $host;
            proxy_set_header Remote-Addr $remote_addr;
            proxy_set_header Remote-Port $remote_port;
            proxy_set_header Original-URI $request_uri;
        }
        location / {
            auth_request /auth;
            auth_request_set $auth_user $upstream_http_tailscale_user;
            root %%TESTDIR%%/html;
        }
    }
EOF
    serve => 'server { listen 127.0.0.1:8080; root %%TESTDIR%%/html; }',
);

# Peers come first: each server is to find them there when it starts.
my $client = $t->start_tailscaled('client', control => $control,
    key => 'key-alice');
my (%peer, %plain_pids);
for my $name (grep { $_ ne 'module' } @ways) {
    $peer{$name} = $t->start_tailscaled($host{$name}, control => $control,
        key => 'key-web');
    my ($master, $worker) = plain_nginx($t, $host{$name}, $plain{$name});
    $plain_pids{$name} = { master => $master, worker => $worker };
}
my $auth = start_nginx_auth($peer{'nginx-auth'});
serve();
$t->run;
join_way($_) for @ways;

# nginx-auth looks for tailscaled's socket in one place only; it gets a /run of
# its own.
sub start_nginx_auth ($peer) {
    my $socket = $t->testdir . '/nginx-auth.sock';
    my $proc = $t->spawn($peer->name, ['unshare', '--mount', 'sh', '-c',
        'mount -t tmpfs none /run && mkdir /run/tailscale'
            . ' && ln -s "$1" /run/tailscale/tailscaled.sock'
            . ' && umask 0 && exec "$2" -sockpath "$3"',
        'sh', $peer->{socket}, $t->binary('nginx_auth'), $socket],
        name => 'nginx-auth', stdin => '/dev/null');

    Test::Tailnet::Process::until_true(5, sub { -S $socket })
        or die 'nginx-auth: ' . $proc->stderr;
    return $proc;
}

sub serve () {
    my $r = $peer{serve}->tailscale('serve', '--bg', '--http', 80,
        'http://127.0.0.1:8080');

    $r->{ok} or die "tailscale serve: $r->{output}";
}

# join_way(name): the address of a server that joins, and all processes of one
# that does.
sub join_way ($name) {
    my $ip = address($name);

    $way{$name}{url} = "http://$ip";
    ask($name, JOIN);
    $way{$name}{client} = $client->pid;
    $way{$name}{server} = processes($name);
}

sub ask ($name, $seconds) {
    my $r = $t->wait_http('client', "$way{$name}{url}/1k", $seconds,
        headers => ["Host: $way{$name}{name}"]);

    $r->ok or die "$name does not answer: @{[$r->text]}\n";
}

sub address ($name) {
    my $node = $control->wait_node($name eq 'module' ? 'module' : $host{$name},
        JOIN) or die "$name has not joined\n";

    return $node->{Node}{Addresses}[0] =~ s{/.*}{}r;
}

sub processes ($name) {
    if ($name eq 'module') {
        my $holder = $t->holder;
        my ($worker) = $t->workers;

        return { holder => $holder, engine => $t->engine($holder),
            master => $t->master, worker => $worker };
    }
    return { tailscaled => $peer{$name}->pid, $plain_pids{$name}->%*,
        $name eq 'nginx-auth' ? ('nginx-auth' => $auth->pid) : () };
}

# ---- restarts ----

# first_byte(name, fresh): seconds from the start of a server, which has not
# run, until its first byte reaches the client.  nginx beside tailscaled runs
# all the time; fresh: nobody knows the node.
sub first_byte ($name, $fresh) {
    my $probe = $t->spawn('client', ['perl', "$FindBin::Bin/first-byte.pl", 80,
        $way{$name}{name}, '/1k'], name => 'first-byte');

    $probe->wait_stdout(qr/^ready$/m, 5) or die $probe->stderr;
    end($name);
    forget($name) if $fresh;
    # A client that knows the address does not wait for us.
    $probe->say($way{$name}{url} =~ s{.*/}{}r) if !$fresh;
    my $begin = time;
    begin($name, $fresh);
    $probe->say(address($name)) if $fresh;
    $probe->wait(JOIN);
    my ($at) = $probe->stdout =~ /^([\d.]+)$/m or die "$name: "
        . $probe->stderr;
    join_way($name);
    return $at - $begin;
}

sub end ($name) {
    if ($name eq 'module') {
        my @pids = values processes($name)->%*;

        $t->stop('QUIT');
        $t->wait_gone(JOIN, @pids) or die "tailnetd does not end\n";
    } else {
        $peer{$name}->stop;
    }
}

sub forget ($name) {
    if ($name eq 'module') {
        $control->remove('module');
        remove_tree($t->testdir . '/state');
    } else {
        $control->remove($host{$name});
        $peer{$name}->forget;
    }
}

sub begin ($name, $fresh) {
    if ($name eq 'module') {
        $t->run;
        return;
    }
    $peer{$name}->start;
    return if !$fresh;
    $peer{$name}->login->wait_login;
    serve() if $name eq 'serve';
}

# ---- measuring ----

my $begun = time;
my $small = sample(\@ways,
    sub ($name) { load_on($t, $way{$name}, '/1k', '-c32') });
my $bulk = sample(\@ways,
    sub ($name) { load_on($t, $way{$name}, '/1m', '-c8') });
my %memory = map {
    $_ => [sum(map { private_kb($_) } values $way{$_}{server}->%*) / 1024]
} @ways;
my $restart = sample(\@ways, sub ($name) { first_byte($name, 0) });
my $join = sample(\@ways, sub ($name) { first_byte($name, 1) });

$client->block_udp;
for my $name (@ways) {
    my $ip = $way{$name}{url} =~ s{.*/}{}r;

    Test::Tailnet::Process::until_true(JOIN,
        sub { $client->ping($ip) =~ / via DERP/ })
        or die "$name is not reached by the relay\n";
    ask($name, JOIN);
}
my $relayed = sample(\@ways,
    sub ($name) { load_on($t, $way{$name}, '/1k', '-c32') });

# ---- showing ----

printf "Median of %d rounds of %d s (lowest–highest), %d s in all.\n\n",
    $rounds, $seconds, time - $begun;
my $rps = ['requests/s', sub ($r) { $r->{rps} }];
my @latency = (['p50 ms', sub ($r) { $r->{p50} / 1000 }],
    ['p99 ms', sub ($r) { $r->{p99} / 1000 }]);
table('1 KB, 32 connections', \@ways, $small, $rps, @latency,
    ['server CPU µs/request', \&server_us], ['client tunnel', \&client_us]);
table('1 MB, 8 connections', \@ways, $bulk,
    ['MB/s', sub ($r) { $r->{mbps} }],
    ['server CPU s/GB', \&server_gb], ['client tunnel', \&client_gb]);
table('1 KB by relay only', \@ways, $relayed, $rps, @latency,
    ['server CPU µs/request', \&server_us]);
table('first byte', \@ways,
    { map { my $w = $_;
        $w => [map { { restart => $restart->{$w}[$_],
            join => $join->{$w}[$_] } } 0 .. $rounds - 1] } @ways },
    ['after a restart, s', sub ($r) { $r->{restart} }],
    ['after a fresh join, s', sub ($r) { $r->{join} }]);
table('after load', \@ways, \%memory, ['private memory, MB', sub ($mb) { $mb }]);

# middle(samples, way, of): the median.
sub middle ($rows, $name, $of) { median(map { $of->($_) } $rows->{$name}->@*) }

my $same = sub ($n) { $n };
my $mbps = sub ($r) { $r->{mbps} };
my @others = grep { $_ ne 'tailscaled' } @ways;
columns(['against tailscaled, nginx', @others], map {
    my ($what, $rows, $of) = @$_;
    my $base = middle($rows, 'tailscaled', $of);

    [$what, map { sprintf '%.2f ×', middle($rows, $_, $of) / $base } @others];
} ['requests/s', $small, $rps->[1]], ['MB/s', $bulk, $mbps],
    ['server CPU s/GB', $bulk, \&server_gb], ['private memory', \%memory, $same],
    ['first byte after a restart', $restart, $same],
    ['first byte after a fresh join', $join, $same],
    ['p99 by relay only', $relayed, $latency[1][1]]);

sub ratio ($rows, $of) {
    return middle($rows, 'module', $of) / middle($rows, 'tailscaled', $of);
}

columns(['module', 'measured', 'aim'],
    ['requests/s against tailscaled, nginx',
        sprintf('%.2f ×', ratio($small, $rps->[1])), '≥ 1.4 ×'],
    ['server CPU per GB against tailscaled, nginx',
        sprintf('%.2f ×', ratio($bulk, \&server_gb)), '≤ 0.5 ×'],
    ['private memory after load',
        sprintf('%.1f MB', middle(\%memory, 'module', $same)), '≤ 20 MB'],
    ['first byte after a restart',
        sprintf('%.2f s', middle($restart, 'module', $same)), '≤ 0.35 s'],
    ['first byte after a fresh join',
        sprintf('%.2f s', middle($join, 'module', $same)), '≤ 1 s'],
    ['p99 by relay only',
        sprintf('%.0f ms', middle($relayed, 'module', $latency[1][1])),
        '≤ 50 ms']);
