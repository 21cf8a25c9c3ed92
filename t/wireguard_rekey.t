# Sessions are renewed under traffic.  nginx renews those that it began, when
# they get old; those that the peer began are the peer's to renew, and nginx
# begins another only when the old one may not be used any more.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA;
use Test::More;
use Test::Tailnet;

use constant { SIZE => 9_000_000, REKEYS => 3 };

my $t = Test::Tailnet->new(also => ['reqloop', 'impair']);
my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
my $carol = $t->node('carol');

# Only nginx can begin with alice, and only carol with nginx.
$t->netmap('web.json', self => $web,
    peers => [$alice, { %$carol, endpoints => [] }]);
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%% timing=rekey_after=2000,reject_after=8000,rekey_timeout=500,keepalive=4000;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        location / {
            tailnet_acl accept *;
            root %%TESTDIR%%/html;
        }
        location = /file.bin {
            tailnet_acl accept *;
            root %%TESTDIR%%/html;
            limit_rate 900k;
        }
    }
}
EOC
mkdir $t->testdir . '/html';
$t->write_file('html/small', "small\n");
my $file = $t->write_file('html/file.bin',
    pack 'N*', map { ($_ * 2654435761) & 0xffffffff } 1 .. SIZE / 4);
my $sha256 = Digest::SHA->new(256)->addfile($file)->hexdigest;

$t->run;

sub wireguard () { $t->node_status->{wireguard} }

sub until_true { Test::Tailnet::Process::until_true(@_) }

my $a = $t->start_wgpeer($alice, peers => [{ %$web, endpoint => '' }]);

# wireguard-go starts the clock of its next attempt when a message is sent: an
# answer that is there before would not stop it.
my $slow = $t->start_impair(to => $web, delay => 100);
my $c = $t->start_wgpeer($carol,
    peers => [{ %$web, endpoint => $slow->endpoint }]);
ok($t->ctl('ping', 'alice')->{ok}, 'nginx begins a session with alice');
is($t->http_get('carol', 'http://100.64.0.1/small')->status, 200,
    'carol begins one with nginx');
$slow->set(delay => 0);
my $theirs = $c->handshake($web);
my $first = wireguard();
is($first->{handshakes_completed}, 2, 'two sessions');

my @downloads = map { $t->fetch($_, 'http://100.64.0.1/file.bin',
    timeout => 30) } qw(alice carol);
my @loops = map { $t->start_reqloop($_, url => 'http://100.64.0.1:80/small',
    parallel => 2, interval => 20, timeout => 3000) } qw(alice carol);

my $now;
ok(until_true(15, sub {
    $now = wireguard();
    return $now->{handshakes_completed} >= 2 + REKEYS;
}), 'sessions are renewed') or diag(explain($now));
my $renewed = $now->{handshakes_completed} - 2;
ok($downloads[0]->alive, "alice's download is still under way");
is($now->{handshakes_sent} - $first->{handshakes_sent}, $renewed,
    'by as many messages of nginx');
is($now->{handshakes_received} - $first->{handshakes_received}, $renewed,
    'and as many answers');
is($c->handshake($web), $theirs, "nginx leaves carol's session to her");
cmp_ok($a->handshake($web), '>', $theirs + 4, "all were alice's");

ok($c->wait_handshake($web, 10, $theirs),
    "carol's session is replaced when it may not be used any more");
cmp_ok($c->handshake($web) - $theirs, '>=', 7.5, 'not earlier');

for my $who (qw(alice carol)) {
    my $got = (shift @downloads)->response;
    my $loop = (shift @loops)->stop;

    ok($got->ok, "$who: the download was finished") or diag($got->text);
    is($got->sha256, $sha256, "$who: with the right bytes");
    is($loop->{failures}, 0, "$who: no request failed")
        or diag(explain($loop));
    cmp_ok($loop->{ok}, '>', 100, "$who: of many");
}
is(wireguard()->{$_}, 0, "no $_") for qw(drop_auth drop_handshake
    drop_handshake_replay drop_handshake_flood);

$t->done_testing;
