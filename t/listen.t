# tailnet_listen: protocols, families, vhosts, socket options, and "listen" on
# the same port beside it.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');

$t->netmap('web.json', self => $web, peers => [$alice]);
for my $name (qw(one two)) {
    my $r = $t->run_in('host', qw(openssl req -x509 -newkey ec -pkeyopt
        ec_paramgen_curve:P-256 -nodes -days 2 -subj), "/CN=$name.test",
        '-keyout', "$name.pem", '-out', "$name.crt");
    ok($r->{ok}, "a certificate for $name") or diag($r->{output});
}
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
worker_processes 2;
events { }
http {
    map $server_name $who { default $server_name; "" none; }
    add_header X-Who "$who";
    add_header X-Server "$server_addr $server_port";
    add_header X-Client "$remote_addr";
    add_header X-Protocol "$server_protocol $scheme";
    add_header X-User "$tailnet_user";
    root %%TESTDIR%%/html;

    server { tailnet_listen 80; server_name one.test *.one.test; }
    server { tailnet_listen web:80 default_server; server_name two.test; }
    server { tailnet_listen 80; listen 80; server_name three.test; }
    server { listen 80 default_server; server_name host.test; }

    server {
        tailnet_listen 443 ssl http2;
        server_name one.test;
        ssl_certificate %%TESTDIR%%/one.crt;
        ssl_certificate_key %%TESTDIR%%/one.pem;
    }
    server {
        tailnet_listen 443 ssl;
        server_name two.test;
        ssl_certificate %%TESTDIR%%/two.crt;
        ssl_certificate_key %%TESTDIR%%/two.pem;
    }
    server { tailnet_listen 82 http2; server_name h2c.test; }
    server {
        tailnet_listen 8001 backlog=33 rcvbuf=16k sndbuf=24k;
        server_name options.test;
    }
    server {
        tailnet_listen 8002 so_keepalive=10m:20s:7;
        server_name keepalive.test;
    }
    server { tailnet_listen 8003 deferred; server_name deferred.test; }
    server { tailnet_listen 8004 reuseport; server_name reuseport.test; }
    server { tailnet_listen 8005 so_keepalive=on; server_name on.test; }
    server { tailnet_listen 65535; listen 65534; server_name last.test; }
}
EOF
$t->run;
$t->start_wgpeer($alice, peers => [$web]);

my $mesh = '100.64.0.1';
my $mesh6 = '[fd7a:115c:a1e0::1]';
my $home = $t->underlay('host');

$t->wait_http('alice', "http://$mesh/");

sub ask ($who, $url, @curl) {
    my $r = $t->http_get($who, $url, curl => \@curl);
    return 'none' if !$r->status;
    return join ' | ', $r->status, map { $r->header($_) // '' }
        qw(x-who x-server x-client x-protocol x-user);
}

# Addresses and families.
my $h1 = 'HTTP/1.1 http | alice@example.com';
is(ask('alice', "http://$mesh/"),
    "200 | two.test | $mesh 80 | 100.64.0.2 | $h1", 'IPv4');
is(ask('alice', "http://$mesh6/"), '200 | two.test | fd7a:115c:a1e0::1 80 | '
    . "fd7a:115c:a1e0::2 | $h1", 'IPv6');
is(ask('alice', "http://$mesh:65535/"),
    "200 | last.test | $mesh 65535 | 100.64.0.2 | $h1", 'another port');
is(ask('alice', "http://$mesh:81/", qw(-m 1)), 'none',
    'a port that nobody listens on');
is(ask('alice', "http://$mesh:65534/", qw(-m 1)), 'none',
    '"listen" is not for the mesh');
is(ask('host', "http://$home:65535/"), 'none',
    '"tailnet_listen" is not for the host');

# Virtual servers, by Host.
for my $case (
    ['one.test', 'one.test'],
    ['sub.one.test', 'one.test'],
    ['three.test', 'three.test'],
    ['ONE.test:80', 'one.test'],
    ['host.test', 'two.test', 'unknown here: the default'],
) {
    my ($host, $want, $name) = @$case;
    like(ask('alice', "http://$mesh/", '-H', "Host: $host"),
        qr/^200 \| \Q$want\E \|/, $name // "Host: $host");
    like(ask('alice', "http://$mesh6/", '-H', "Host: $host"),
        qr/^200 \| \Q$want\E \|/, 'the same by IPv6');
}

# The same port of the host.
my $peer = $t->underlay('host');
is(ask('host', "http://$home/"),
    "200 | host.test | $home 80 | $peer | HTTP/1.1 http | ",
    'the host has a port 80 of its own');
for my $case (
    ['one.test', 'host.test', 'a server of the mesh only'],
    ['three.test', 'three.test', 'one of both'],
) {
    my ($host, $want, $name) = @$case;
    like(ask('host', "http://$home/", '-H', "Host: $host"),
        qr/^200 \| \Q$want\E \|/, $name);
}

# TLS and HTTP/2.
my @one = ('--cacert', $t->testdir . '/one.crt', '--connect-to',
    "one.test:443:$mesh:443");
my $client = "$mesh 443 | 100.64.0.2";
is(ask('alice', 'https://one.test/', @one, '--http1.1'),
    "200 | one.test | $client | HTTP/1.1 https | alice\@example.com", 'TLS');
is(ask('alice', 'https://one.test/', @one, '--http2'),
    "200 | one.test | $client | HTTP/2.0 https | alice\@example.com",
    'HTTP/2 by ALPN');
is(ask('alice', 'https://two.test/', '--cacert', $t->testdir . '/two.crt',
    '--connect-to', "two.test:443:$mesh:443", '--http1.1'),
    "200 | two.test | $client | HTTP/1.1 https | alice\@example.com", 'SNI');
is(ask('alice', 'https://one.test/', '--cacert', $t->testdir . '/one.crt',
    '--connect-to', "one.test:443:$mesh6:443"),
    '200 | one.test | fd7a:115c:a1e0::1 443 | fd7a:115c:a1e0::2 | '
    . 'HTTP/2.0 https | alice@example.com', 'TLS by IPv6');
is(ask('alice', "http://$mesh:82/", '--http2-prior-knowledge'),
    "200 | h2c.test | $mesh 82 | 100.64.0.2 | HTTP/2.0 http | "
    . 'alice@example.com', 'HTTP/2 without TLS');

# Options, as the kernel has them.
sub sockets (@args) {
    my $r = $t->ctl('exec', 'web', '--', 'ss', '-H', @args);
    return $r->{stdout} =~ s/\s*\n\t\s*/ /gr;
}
my $all = sockets(qw(-4ltn));
my %ports;
$ports{$1}++ while $all =~ /^LISTEN\s+\d+\s+\d+\s+\S+:(\d+)\s/mg;
is_deeply(\%ports, { 80 => 1, 443 => 1, 82 => 1, 8001 => 1, 8002 => 1,
    8003 => 1, 8004 => 2, 8005 => 1, 65535 => 1 },
    'one socket per port, with reuseport one per worker') or diag($all);

for my $family (4, 6) {
    my $options = sockets("-${family}ltnm", 'sport = :8001');
    like($options, qr/^LISTEN\s+0\s+33\s/, "backlog, IPv$family");
    like($options, qr/skmem:\(r\d+,rb32768,t\d+,tb49152,/,
        "rcvbuf and sndbuf, IPv$family (the kernel doubles)");
}
like(sockets('-4ltn', 'sport = :8002'), qr/^LISTEN\s+0\s+511\s/,
    "nginx's own backlog without");

# What a connection inherits.
sub held ($port, $check) {
    my $s = $t->spawn('alice', [$^X, '-MIO::Socket::IP', '-e', <<'EOF',
$| = 1;
my $s = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1])
    or die $@;
print "open\n";
sleep 1 while 1;
EOF
        $mesh, $port]);
    $s->wait_stdout(qr/open/, 5) or diag($s->stderr);
    my $result = Test::Tailnet::Process::until_true(3, $check);
    $s->stop;
    return $result;
}
my $state = '';
ok(held(8002, sub { ($state = sockets(qw(-tno state established),
    'sport = :8002')) =~ /timer:\(keepalive,(?:9min\d*|10min)/ }),
    'so_keepalive with times') or diag($state);
ok(held(8005, sub { ($state = sockets(qw(-tno state established),
    'sport = :8005')) =~ /timer:\(keepalive,(?:119|120)min/ }),
    'so_keepalive=on') or diag($state);
ok(held(8001, sub { ($state = sockets(qw(-tno state established),
    'sport = :8001')) =~ /^\d/ && $state !~ /keepalive/ }),
    'no so_keepalive') or diag($state);
ok(held(8003, sub { ($state = sockets(qw(-tn state syn-recv),
    'sport = :8003')) =~ /:8003/ }),
    'deferred: not accepted without data') or diag($state);

for my $port (8001 .. 8005) {
    like(ask('alice', "http://$mesh:$port/"), qr/^200 .*alice/,
        "port $port serves");
    like(ask('alice', "http://$mesh6:$port/"), qr/^200 .*alice/, 'by IPv6');
}
for (1 .. 40) {
    like(ask('alice', "http://$mesh:8004/"), qr/^200 .*alice/,
        'reuseport: all workers know who it is') or last;
}

# After a reload everything is as it was.
my $inodes = sockets(qw(-ltne)) =~ s/^LISTEN\s+\d+//mgr;
ok($t->reload(drain => 5), 'reload');
is(join('', sort split /^/m, sockets(qw(-ltne)) =~ s/^LISTEN\s+\d+//mgr),
    join('', sort split /^/m, $inodes), 'the sockets are the same');
like(ask('alice', "http://$mesh/", '-H', 'Host: one.test'),
    qr/^200 \| one\.test \|/, 'and serve');

# Configuration.
for my $case (
    ['0', qr/invalid port in "0"/],
    ['65536', qr/invalid port in "65536"/],
    ['web', qr/invalid port in "web"/],
    [':80', qr/no node name in ":80"/],
    ['lap:80', qr/"lap"/],
    ['80 backlog=x', qr/invalid value "backlog=x"/],
    ['80 rcvbuf=0', qr/invalid value "rcvbuf=0"/],
    ['80 so_keepalive=maybe', qr/invalid value "so_keepalive=maybe"/],
    ['80 so_keepalive=::', qr/invalid value "so_keepalive=::"/],
    ['80 fast', qr/invalid parameter "fast"/],
    ['80; tailnet_listen 80', qr/duplicate/],
) {
    my ($listen, $why) = @$case;
    my $got = $t->test_config(<<"EOF");
tailnet_node web { netmap %%TESTDIR%%/web.json;
    private_key %%TESTDIR%%/web.key; }
events { }
http {
    server { tailnet_listen $listen; }
}
EOF
    ok(!$got->{ok}, "\"tailnet_listen $listen\" is refused");
    like($got->{output}, $why, 'with the reason');
    like($got->{output}, qr/test\.conf:5\b/, 'and the place');
}

$t->done_testing;
