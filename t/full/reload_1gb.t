# One gigabyte over twenty reloads.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Digest::SHA;
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
$t->netmap('web.json', self => $web, peers => [$alice]);
mkdir $t->testdir . '/html';
open my $fh, '>:raw', $t->testdir . '/html/big' or die $!;
for my $mb (1 .. 1024) {
    print $fh pack 'N*', map { ($_ * 2654435761 + $mb) & 0xffffffff } 1 .. 262_144;
}
close $fh or die $!;
my $sha256 = Digest::SHA->new(256)->addfile($t->testdir . '/html/big')->hexdigest;
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
$t->start_wgpeer($alice, peers => [$web]);
my $get = $t->fetch('alice', 'http://100.64.0.1/big', rate => '40M', timeout => 300);
for my $i (1 .. 20) {
    ok($get->wait_received($i * 45_000_000, 60), "piece $i has come");
    ok($t->reload, "reload $i");
}
my $r = $get->response;
ok($r->ok, 'the download ends well') or diag($r->text);
is($r->sha256, $sha256, 'with the right bytes');

$t->done_testing;
