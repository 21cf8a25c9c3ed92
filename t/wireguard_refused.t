# What nginx's node does not take: strangers, wrong preshared keys, addresses
# that a peer has no right to, garbage, and floods.  All of it is counted by
# cause and changes nothing for those who belong there.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my ($alice, $bob, $carol, $dave, $erin, $mallory) =
    map { $t->node($_) } qw(alice bob carol dave erin mallory);
my %psk = map { $_->{name} => $t->psk } $dave, $erin;

# mallory is not in the netmap.
$t->netmap('web.json', self => $web,
    peers => [$alice, $bob, $carol, $dave, $erin]);
$t->write_file('web.psk', join('', "# peers with a second secret\n",
    map { "$_->{pub} $psk{$_->{name}}\n" } $dave, $erin), 0600);
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap          %%TESTDIR%%/web.json;
    private_key     %%TESTDIR%%/web.key;
    preshared_keys  %%TESTDIR%%/web.psk;
    port            41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        location / {
            tailnet_acl accept *;
            root %%TESTDIR%%/html;
        }
    }
}
EOC
mkdir $t->testdir . '/html';
$t->write_file('html/hello', "hello\n");

$t->run;

sub wireguard () { $t->node_status->{wireguard} }

# changes(before): WireGuard's counters of drops and cookies that have changed
# since then, as "name=difference ...".
sub changes ($before) {
    my $now = wireguard();
    return join ' ', map { "$_=" . ($now->{$_} - $before->{$_}) }
        grep { /^(?:drop|cookies)_/ && $now->{$_} != $before->{$_} }
        sort keys %$now;
}

# counted(name, before, seconds): wait until it is more than before.
sub counted ($name, $before, $seconds = 10) {
    return Test::Tailnet::Process::until_true($seconds,
        sub { wireguard()->{$name} > $before->{$name} });
}

sub asks ($who, %o) {
    return $t->http_get($who, 'http://100.64.0.1/hello', %o);
}

my $a = $t->start_wgpeer($alice, peers => [$web]);
is(asks('alice')->status, 200, 'alice is served');

subtest 'a stranger' => sub {
    my $before = wireguard();
    my $m = $t->start_wgpeer($mallory, peers => [$web]);

    is(asks('mallory', timeout => 1)->exit, 28, 'gets no answer');
    ok(counted('drop_unknown_peer', $before), 'is counted');
    is($m->handshake($web), 0, 'has no session');
    is($m->peer_status($web)->{rx_bytes}, 0, 'not a byte comes back');
    $m->stop;
};

subtest 'another preshared key' => sub {
    my $before = wireguard();
    my $d = $t->start_wgpeer($dave, peers => [{ %$web, psk => $t->psk }]);

    is(asks('dave', timeout => 1)->exit, 28, 'no session by the peer');
    is($d->handshake($web), 0, 'as the peer finds');
    $d->stop;
    $d = $t->start_wgpeer($dave,
        peers => [{ %$web, endpoint => '', psk => $t->psk }]);
    my $ping = $t->ctl('ping', 'dave');
    ok(!$ping->{ok}, 'no session by nginx');
    like($ping->{stdout}, qr/no answer/, 'as the ping says');
    ok(counted('drop_handshake', $before), 'the bad answer is counted');
    is(wireguard()->{handshakes_completed}, $before->{handshakes_completed},
        'nothing was completed');
    $d->stop;
    $d = $t->start_wgpeer($dave, peers => [{ %$web, psk => $psk{dave} }]);
    my $right = asks('dave');
    is($right->status, 200, 'with the right one it works')
        or diag($right->text);
    $d->stop;

    my $e = $t->start_wgpeer($erin, peers => [$web]);
    is(asks('erin', timeout => 1)->exit, 28, 'without one there is no session');
    is($e->handshake($web), 0, 'either');
    $e->stop;
};

subtest 'addresses of others' => sub {
    my %other = (
        'of nobody' => ['100.64.0.99', '100.64.0.1'],
        'of alice' => [$alice->{addr}[0], '100.64.0.1'],
        'of alice, IPv6' => [$alice->{addr}[1], '[fd7a:115c:a1e0::1]'],
    );
    my $b = $t->start_wgpeer({ %$bob, addr => [$bob->{addr}->@*,
        map { $_->[0] } values %other] }, peers => [$web]);

    is($t->run_in('bob', 'curl', '-s', '--interface', $bob->{addr}[0],
        '-m', 5, 'http://100.64.0.1/hello')->{stdout}, "hello\n",
        'bob is served as bob');
    for my $what (sort keys %other) {
        my ($from, $to) = $other{$what}->@*;
        my $before = wireguard();
        my $got = $t->run_in('bob', 'curl', '-s', '-g', '-m', 1,
            '--interface', $from, "http://$to/hello");

        is($got->{exit}, 28, "an address $what gets no answer");
        ok(counted('drop_source', $before), 'it is counted');
    }
    unlike($t->read_log('access.log'), qr/^\Q$alice->{addr}[1]\E /m,
        "nothing was done in alice's name");
    is(asks('alice')->status, 200, 'alice is still alice');
    $b->stop;
};

# What anybody on the network can make: a public key is no secret, so the
# first of the two MACs can be right.  ${fill}: what the rest is made of.
sub initiation ($good_mac, $fill) {
    my $head = pack('V', 1) . $fill x 112;
    my $key = openssl('dgst', '-blake2s256', '-binary',
        \('mac1----' . pack 'H*', $web->{pub} =~ s/^nodekey://r));
    my $mac = openssl('mac', '-macopt', 'hexkey:' . unpack('H*', $key),
        '-macopt', 'size:16', '-binary', 'BLAKE2SMAC', \$head);
    return $head . ($good_mac ? $mac : "\0" x 16) . "\0" x 16;
}

sub openssl (@args) {
    my $in = $t->write_file('openssl.in', ${ pop @args });
    my @last = $args[0] eq 'mac' ? ('-in', $in, pop @args) : ($in);
    return Test::Tailnet::Net::output('openssl', @args, @last);
}

# Send datagrams to nginx from a host outside the mesh, ${count} a second for
# at most ${seconds}.
my $script = $t->write_file('datagrams.pl', <<'EOF2');
use v5.36;
use IO::Socket::INET;
use Time::HiRes qw(sleep time);
my ($host, $rate, $seconds, @hex) = @ARGV;
my @datagrams = map { pack 'H*', $_ } @hex;
my $socket = IO::Socket::INET->new(Proto => 'udp', PeerAddr => $host) or die;
if (!$rate) {
    $socket->send($_) // 1 for @datagrams;
    exit;
}
my ($start, $sent) = (time, 0);
while ((my $age = time - $start) < $seconds) {
    $socket->send($datagrams[$sent++ % @datagrams]) while $sent < $age * $rate;
    sleep 0.005;
}
EOF2

sub throw (@datagrams) {
    my $sent = $t->run_in('outside', $^X, $script,
        $t->underlay('host') . ':41641', 0, 0,
        map { unpack 'H*', $_ } @datagrams);
    $sent->{ok} or die $sent->{output};
}
$t->underlay('outside');

subtest 'garbage' => sub {
    my $noise = join '', map { chr(($_ * 167 + 13) & 255) } 1 .. 1400;
    my $good = initiation(1, 'x');
    my @cases = (
        ['nothing', '', 'drop_malformed'],
        ['a byte', "\1", 'drop_malformed'],
        ['a type and no more', pack('V', 4), 'drop_malformed'],
        ['noise', $noise, 'drop_malformed'],
        ['as much noise as goes into a datagram', "\x55" x 60_000,
            'drop_malformed'],
        ['an unknown type', pack('V', 5) . "\0" x 144, 'drop_malformed'],
        ['a type with reserved bits', pack('V', 0x101) . substr($good, 4),
            'drop_malformed'],
        ['an initiation cut short', substr($good, 0, 147), 'drop_malformed'],
        ['an initiation and a byte', "$good\0", 'drop_malformed'],
        ['a response cut short', pack('V', 2) . "\0" x 87, 'drop_malformed'],
        ['a cookie cut short', pack('V', 3) . "\0" x 59, 'drop_malformed'],
        ['data cut short', pack('V', 4) . "\0" x 27, 'drop_malformed'],
        ['an initiation with a bad MAC', initiation(0, 'x'), 'drop_mac1'],
        ['an initiation that cannot be opened', $good, 'drop_handshake'],
        ['a response with a bad MAC', pack('V', 2) . "\0" x 88, 'drop_mac1'],
        ['data of no session', pack('V', 4) . "\0" x 28, 'drop_index'],
        ['a cookie for nobody', pack('V', 3) . "\0" x 60, 'drop_index'],
    );

    for my $case (@cases) {
        my ($what, $datagram, $counter) = @$case;
        my $before = wireguard();
        throw($datagram);
        counted($counter, $before, 2);
        is(changes($before), "$counter=1", $what);
    }
    is(asks('alice')->status, 200, 'alice is served as before');
};

subtest 'a flood of initiations' => sub {
    my $before = wireguard();
    my $flood = $t->spawn('outside', [$^X, $script,
        $t->underlay('host') . ':41641', 2000, 15,
        unpack 'H*', initiation(1, 'y')]);

    ok(counted('cookies_sent', $before), 'is answered by cookies');
    cmp_ok(wireguard()->{drop_handshake} - $before->{drop_handshake}, '<',
        2000, 'and no longer looked at');
    ok(asks('alice', timeout => 3)->ok, 'a session that is goes on');
    my $c = $t->start_wgpeer($carol, peers => [$web]);
    my $got = asks('carol', timeout => 12);
    ok($got->ok, 'a peer can still begin one') or diag($got->text);
    ok($flood->alive, 'during the flood');
    like($t->read_log('carol.wgpeer.log'), qr/Receiving cookie response/,
        'with a cookie of its own');
    $flood->stop;
    ok(Test::Tailnet::Process::until_true(5, sub {
        $before = wireguard();
        throw(initiation(1, 'z'));
        return counted('drop_handshake', $before, 0.5);
    }), 'it is over some time');
    $c->stop;
    $before = wireguard();
    $c = $t->start_wgpeer($carol, peers => [$web]);
    ok(asks('carol')->ok, 'then a session begins as ever');
    is(changes($before), '', 'without a cookie');
};

is($t->node_status->{state}, 'running', 'the node is as it was');

$t->done_testing;
