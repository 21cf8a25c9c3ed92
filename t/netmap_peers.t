# Peers that a netmap file brings, changes and takes away, and keys that expire:
# nginx follows while it runs.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use POSIX qw(strftime);
use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
my $bob = $t->node('bob');

sub rule (%o) {
    return $t->netmap('web.json', self => $web, peers => [$alice, $bob], %o);
}
rule();
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        keepalive_timeout 0;
        location / {
            tailnet_acl accept *;
            add_header X-Node $tailnet_node;
            add_header X-User $tailnet_user;
            add_header X-Tags $tailnet_tags;
            add_header X-Ip $tailnet_ip;
            root %%TESTDIR%%/html;
        }
    }
}
EOC
mkdir $t->testdir . '/html';
$t->write_file('html/hello', "hello\n");
$t->run;
my $a = $t->start_wgpeer($alice, peers => [$web]);
my $b = $t->start_wgpeer($bob, peers => [$web]);

sub asks ($who, %o) {
    return $t->http_get($who, 'http://100.64.0.1/hello', %o);
}

# soon(condition, what, within): it becomes true, and in so many seconds.
sub soon ($condition, $what, $within = 1) {
    my $start = time;
    my $true = Test::Tailnet::Process::until_true(10, $condition);

    ok($true, $what);
    cmp_ok(time - $start, '<', $within + 0.5, "  within $within s") if $true;
}

sub header ($name) { asks('alice', timeout => 2)->header($name) // '' }

sub peers () {
    return join ' ', map { $_->{name} =~ s/\..*//r }
        $t->node_status->{peers}->@*;
}

# Whom nginx has forgotten keeps a session that is worth nothing, and would
# find out in 15 seconds.
sub anew ($peer) {
    $peer->remove_peer($web);
    $peer->add_peer($web);
}

subtest 'peers' => sub {
    rule(peers => [$alice]);
    soon(sub { peers() eq 'alice' }, 'one removed');
    is(asks('bob', timeout => 1)->exit, 28, 'is cut off');
    rule();
    soon(sub { peers() eq 'alice bob' }, 'added again');
    anew($b);
    is(asks('bob')->status, 200, 'is let in');

    # A worker must know whom the engine lets in, also in a quick succession.
    for my $n (1 .. 3) {
        for my $who ([$alice], [$alice, $bob]) {
            my $names = join ' ', map { $_->{name} } @$who;
            rule(peers => $who);
            Test::Tailnet::Process::until_true(10, sub { peers() eq $names });
        }
        anew($b);
        is(asks('bob')->status, 200, "added once more ($n)");
    }

    rule(peers => [{ %$alice, name => 'liddell' }, $bob]);
    soon(sub { header('x-node') eq 'liddell.tailnet.test' }, 'renamed');
    rule(peers => [{ %$alice, tags => ['tag:a', 'tag:b'] }, $bob]);
    soon(sub { header('x-tags') eq 'tag:a,tag:b' }, 'tagged');
    is(header('x-user'), '', 'a tagged node has no user');
    rule();
    soon(sub { header('x-user') eq 'alice@example.com' }, 'untagged');

    # alice's WireGuard has her new address from the start.
    $a->stop;
    my $moved = { %$alice, addr => ['100.64.0.77', 'fd7a:115c:a1e0::77'] };
    $a = $t->start_wgpeer($moved, peers => [$web]);
    is(asks('alice', timeout => 1)->exit, 28, 'a new address is not hers yet');
    rule(peers => [$moved, $bob]);
    soon(sub { (asks('alice', timeout => 1)->header('x-ip') // '')
        eq '100.64.0.77' }, 'until the netmap says so', 3);
    rule(peers => [{ %$bob, addr => $moved->{addr} },
        { %$alice, addr => $bob->{addr} }]);
    soon(sub { asks('alice', timeout => 0.5)->exit == 28 },
        "two have changed addresses: alice's is not hers any more");
    $a->stop;
    $a = $t->start_wgpeer($alice, peers => [$web]);
    rule();
    soon(sub { header('x-ip') eq $alice->{addr}[0] }, 'back', 3);
};

subtest 'endpoints' => sub {
    # alice can only be reached at the endpoint that the netmap has.
    $a->remove_peer($web);
    $a->add_peer({ %$web, endpoint => '' });
    rule(peers => [{ %$bob, endpoints => [] }]);
    soon(sub { peers() eq 'bob' }, 'alice is away');
    my $silent = $t->underlay('nobody') . ':41641';
    rule(peers => [{ %$alice, endpoints => [$silent] }, $bob]);
    soon(sub { ($t->node_status->{peers}[0]{endpoint} // '') eq $silent },
        'she is said to be where she is not');
    ok(!$t->ctl('ping', 'alice')->{ok}, 'she does not answer');
    rule();
    soon(sub { $t->node_status->{peers}[0]{endpoint}
        eq $alice->{endpoints}[0] },
        'the netmap knows better');
    ok(Test::Tailnet::Process::until_true(10,
        sub { $t->ctl('ping', 'alice')->{ok} }), 'she answers there');

    $a->rebind(5000);
    $t->run_in('alice', 'ping', '-c', 1, '-w', 5, '100.64.0.1');
    my $now = $t->underlay('alice') . ':5000';
    soon(sub { $t->node_status->{peers}[0]{endpoint} eq $now }, 'she moves', 2);
    rule(peers => [{ %$alice, endpoints => [$silent],
        user => 'new@example.com' }, $bob]);
    soon(sub { $t->node_status->{peers}[0]{user} eq 'new@example.com' },
        'another netmap');
    is($t->node_status->{peers}[0]{endpoint}, $now, 'what was seen is kept');
    $a->rebind($alice->{port});
    anew($a);
    rule();
};

sub in_seconds ($n) {
    return strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(time + $n));
}

subtest 'key expiry' => sub {
    rule(peers => [{ %$alice, key_expiry => in_seconds(3) }, $bob]);
    my $start = time;
    is(asks('alice')->status, 200, 'not yet');
    soon(sub { asks('alice', timeout => 0.5)->status != 200 },
        'a key has expired', 4);
    cmp_ok(time - $start, '>', 1.5, 'when it was its time');
    is(asks('bob')->status, 200, 'others are served');
    rule(peers => [{ %$alice, key_expiry => in_seconds(3600) }, $bob]);
    soon(sub { $t->node_status->{peers}[0]{key_expiry} > time + 60 },
        'it is renewed');
    anew($a);
    is(asks('alice')->status, 200, 'and let in');
    rule(peers => [$alice, { %$bob, map => { Expired => JSON::PP::true } }]);
    soon(sub { asks('bob', timeout => 0.5)->status != 200 },
        'a peer that is marked as expired is cut off');
    rule();
    soon(sub { exists $t->node_status->{peers}[1]{endpoint} },
        'until it is renewed');
    anew($b);
    is(asks('bob')->status, 200, 'and let in');

    rule(self => { %$web, key_expiry => in_seconds(2) });
    soon(sub { $t->node_status->{state} eq 'expired' },
        "the node's own key expires",
        3);
    is(asks($_, timeout => 1)->exit, 28, "$_ gets nothing")
        for qw(alice bob);
    like($t->node_status->{error},
        qr/^its own key has expired: nothing is forwarded/,
        'which the status says');
    is(() = $t->read_log =~ /node "web": its own key has expired/g, 1,
        'and the error log, once');
    rule();
    soon(sub { $t->node_status->{state} eq 'running' }, 'until it is renewed');
    ok($t->wait_http('alice', 'http://100.64.0.1/hello', 10)->ok,
        'alice is served again');
};

$t->done_testing;
