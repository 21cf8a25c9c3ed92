# A rekey by WireGuard's own clock, begun by wireguard-go: two minutes.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(also => ['reqloop']);

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
$t->netmap('web.json', self => $web, peers => [{ %$alice, endpoints => [] }]);
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http { server { tailnet_listen 80; location / { tailnet_acl accept *; root %%TESTDIR%%/html; } } }
EOC
$t->run;
my $peer = $t->start_wgpeer($alice, peers => [$web]);
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200, 'a session');
my $first = $peer->handshake($web);
my $loop = $t->start_reqloop('alice', url => 'http://100.64.0.1:80/',
    parallel => 2, interval => 100);
ok($peer->wait_handshake($web, 150, $first), 'wireguard-go rekeys by itself');
my $sum = $loop->stop;
is($sum->{failures}, 0, 'no request failed') or diag(explain($sum->{reasons}));
cmp_ok($sum->{requests}, '>', 500, 'all the time');

$t->done_testing;
