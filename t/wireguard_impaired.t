# A path that loses, doubles and reorders, and a peer that moves during a
# download: all the bytes come, and they are the right ones.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA;
use Test::More;
use Test::Tailnet;

use constant SIZE => 8_000_000;

my $t = Test::Tailnet->new(also => ['impair']);
my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
my $bob = $t->node('bob');

# Where the peers are, nginx learns from what they send.
$t->netmap('web.json', self => $web,
    peers => [map { { %$_, endpoints => [] } } $alice, $bob]);
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
        location / {
            tailnet_acl accept *;
            root %%TESTDIR%%/html;
            limit_rate 2m;
        }
    }
}
EOC
mkdir $t->testdir . '/html';
my $file = $t->write_file('html/file.bin',
    pack 'N*', map { ($_ * 2654435761) & 0xffffffff } 1 .. SIZE / 4);
my $sha256 = Digest::SHA->new(256)->addfile($file)->hexdigest;

$t->run;

sub endpoint ($name) { $t->peer_status($name)->{endpoint} }

# alice behind the bad path, bob on the good one.  Keepalives tell nginx that
# they have moved, should no packet of theirs be on its way just then.
my $bad = $t->start_impair(name => 'bad', to => $web, loss => 5, reorder => 5,
    dup => 2, delay => 1, jitter => 1, seed => 7);
my $a = $t->start_wgpeer($alice,
    peers => [{ %$web, endpoint => $bad->endpoint, keepalive => 1 }]);
my $b = $t->start_wgpeer($bob, peers => [{ %$web, keepalive => 1 }]);

is($t->wait_http('alice', 'http://100.64.0.1/', 20)->status, 403,
    'alice reaches nginx over the bad path');
my %port = (alice => endpoint('alice'), bob => $bob->{endpoints}[0]);
like($port{alice}, qr/^\Q@{[$t->underlay('bad')]}\E:\d+\z/,
    'nginx sees the relay');

my %download = map { $_ => $t->fetch($_, 'http://100.64.0.1/file.bin',
    timeout => 60) } qw(alice bob);
ok($download{bob}->wait_received(SIZE / 4, 20), "bob's download is under way");
is(endpoint('bob'), $port{bob}, 'bob is at his port');
$b->rebind(5000);
ok($download{bob}->alive, 'it is not over when bob moves');
ok($download{alice}->wait_received(SIZE / 4, 20), "so is alice's");
$a->rebind(5000);
ok($download{alice}->alive, 'it is not over when alice moves');

for my $who (qw(bob alice)) {
    my $got = $download{$who}->response;

    ok($got->ok, "$who: the download was finished") or diag($got->text);
    is($got->size, SIZE, "$who: all bytes");
    is($got->sha256, $sha256, "$who: the right ones");
}
isnt(endpoint('alice'), $port{alice},
    'nginx follows alice to another port of the relay');
is(endpoint('bob'), $t->underlay('bob') . ':5000',
    'nginx follows bob to his new port');

my $counters = $t->node_status->{wireguard};
my $stats = $bad->stop;
for my $direction (qw(up down)) {
    my $c = $stats->{$direction};
    my $share = 100 * $c->{lost} / $c->{received};

    cmp_ok($c->{received}, '>', 1000, "many datagrams went $direction");
    ok($share > 3 && $share < 7, "a fitting share was lost: $share %");
    cmp_ok($c->{$_}, '>', 10, "some were $_") for qw(duplicated reordered);
}
is($stats->{clients}, 2, 'the relay met alice at two ports');
cmp_ok($counters->{drop_replay}, '>', 10, 'copies were thrown away');
cmp_ok($counters->{drop_replay}, '<=', $stats->{up}{duplicated},
    'and nothing but copies');
is($counters->{$_}, 0, "no $_") for qw(drop_auth drop_malformed drop_source
    drop_inner);

$t->done_testing;
