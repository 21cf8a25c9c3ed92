# The engine is killed in the middle of a reload and of a binary upgrade.
# Nobody's endpoint is in the netmap, so it is the hot state that leads back to
# the peers.  After the third death within a minute it is thrown away: who has
# an endpoint in the netmap comes back at once, others when they speak again.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA ();
use Test::More;
use Test::Tailnet;

use constant SIZE => 30 << 20;

my $t = Test::Tailnet->new(also => ['reqloop']);

my $web = $t->nginx_node('web');
my ($alice, $bob, $carol) = map { $t->node($_) } qw(alice bob carol);
sub netmap (@unknown) {
    my %unknown = map { $_->{name} => 1 } @unknown;
    $t->netmap('web.json', self => $web, peers => [map {
        $unknown{$_->{name}} ? { %$_, endpoints => [] } : $_
    } $alice, $bob, $carol]);
}
netmap($alice, $bob, $carol);

$t->write_config(<<'EOF');
worker_processes 2;
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
        tailnet_acl accept *;
        root %%TESTDIR%%/html;
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
my $body = join '', map { pack('N', $_) x 1024 } 1 .. SIZE / 4096;
$t->write_file('html/big', $body);
my $sha = Digest::SHA::sha256_hex($body);

$t->run;
my %peer = map { $_->{name} => $t->start_wgpeer($_, peers => [$web]) }
    $alice, $bob, $carol;
$t->expect_alert(qr{engine \d+ was killed by signal 9});

# A download that is not over before it is told to go on.
sub download ($who) {
    my $get = $t->fetch($who, 'http://100.64.0.1/big', rate => '5M',
        timeout => 60);
    ok($get->wait_received(1 << 20, 10), "$who has begun a long download");
    return $get;
}

sub whole ($get, $who) {
    my $r = $get->response;
    ok($r->ok, "${who}'s download comes to its end") or diag($r->text);
    is($r->sha256, $sha, 'whole and right');
}

sub loop ($who) {
    return $t->start_reqloop($who, url => 'http://100.64.0.1:80/',
        parallel => 8, interval => 5, timeout => 10_000, size => 6);
}

sub unharmed ($loop, $what) {
    my $s = $loop->stop;
    is($s->{failures}, 0, "$what: none of $s->{requests} requests failed")
        or diag(explain($s->{reasons}));
    cmp_ok($s->{max_gap_ms}, '<', 2000, "$what: traffic goes on within 2 s");
    note("$what: gap $s->{max_gap_ms} ms, request $s->{max_ms} ms");
}

sub kill_now () {
    my $mark = $t->log_mark;

    ok($t->kill_engine, 'the engine is killed, another starts');
    return $mark;
}

# Where the engine would send what is for a peer.
sub endpoint ($name) { $t->peer_status($name)->{endpoint} }

my $big = download('bob');
my $loop = loop('alice');
$t->signal_nginx('HUP');
kill_now();
ok($t->reload, 'nginx reloads');
ok($t->requests(200), 'requests go on');
unharmed($loop, 'reload');

$loop = loop('alice');
ok($t->upgrade_start, 'a new binary starts');
kill_now();
kill 'WINCH', $t->{old_master};
ok($t->requests(200), 'requests go on');
ok($big->alive, "bob's download spans all this");
kill 'QUIT', $t->{old_master};
whole($big, 'bob');
ok($t->upgrade_finish, 'the old binary ends');
unharmed($loop, 'upgrade');

my $mark = $t->log_mark;
netmap($alice, $bob);
ok($t->wait_for_log(qr/netmap applied: 3 peers/, 5, from => $mark),
    'carol has an endpoint in the netmap now');
is(endpoint('alice'), $alice->{endpoints}[0],
    'alice was found again, twice, where she had been');
$big = download('carol');
my $killed = time;
$mark = kill_now();
like($t->log_since($mark), qr/engine died 3 times within 60 s: its hot /,
    'the third death is one too many');
like($t->log_since($mark), qr/the next engine starts in \d+ ms/,
    'the next start waits');
ok($t->wait_for_log(qr/netmap applied: 3 peers/, 5, from => $mark),
    'the netmap is read again');
ok($peer{carol}->wait_handshake($web, 10, $killed),
    'carol is found by her endpoint: there is data for her');
is(endpoint('alice'), '', 'where alice is nobody knows');
$peer{alice}->remove_peer($web);
$peer{alice}->add_peer($web);
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200,
    'alice is back when she shakes hands');
is(endpoint('alice'), $alice->{endpoints}[0], 'and is known again');
whole($big, 'carol');

$t->done_testing;
