# nginx stops and starts again: a peer that goes on with its old session is
# answered with a handshake when the netmap says where it lives.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
$t->netmap('web.json', self => $web, peers => [$alice]);
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
http {
    server {
        tailnet_listen 80;
        location / {
            tailnet_acl accept alice@example.com;
            root %%TESTDIR%%/html;
        }
    }
}
EOC
$t->run;
my $peer = $t->start_wgpeer($alice, peers => [$web]);
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200, 'a session');
my $before = $peer->handshake($web);
ok($t->stop, 'nginx stops');
$t->run;
my $start = time;
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200, 'another');
cmp_ok(time - $start, '<', 4, 'soon after nginx started again');
cmp_ok($peer->handshake($web), '>', $before, 'by a handshake of ours');

$t->done_testing;
