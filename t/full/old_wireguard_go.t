# Debian's own wireguard-go, of 2022: packets of both.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Test::More;
use Test::Tailnet;

my ($program) = grep { -x } '/usr/bin/wireguard-go';
Test::Tailnet::skip("needs Debian's wireguard-go and wireguard-tools")
    if !$program || !-x '/usr/bin/wg';
my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $old = $t->node('old', user => 'alice@example.com');
$t->netmap('web.json', self => $web, peers => [$old]);
mkdir $t->testdir . '/html';
$t->write_file('html/big', pack 'N*', map { ($_ * 2654435761) & 0xffffffff } 1 .. 2_500_000);
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http { server { tailnet_listen 80; location / { tailnet_acl accept alice@example.com; root %%TESTDIR%%/html; } } }
EOC
$t->run;
$t->underlay('old');
my $daemon = $t->spawn('old', [$program, '-f', 'wgold'], name => 'wireguard-go',
    env => { LOG_LEVEL => 'error' });
Test::Tailnet::Process::until_true(5, sub { -S '/var/run/wireguard/wgold.sock' })
    or die $daemon->stderr;
my $key = $web->{pub} =~ s/^nodekey://r;
use MIME::Base64;
for my $cmd (
    ['wg', 'set', 'wgold', 'private-key', $old->{key_file}, 'listen-port', $old->{port},
        'peer', encode_base64(pack('H*', $key), ''), 'endpoint', $web->{endpoints}[0],
        'allowed-ips', '100.64.0.1/32'],
    ['ip', 'addr', 'add', '100.64.0.2/32', 'dev', 'wgold'],
    ['ip', 'link', 'set', 'wgold', 'mtu', '1280', 'up'],
    ['ip', 'route', 'add', '100.64.0.1/32', 'dev', 'wgold'],
) {
    my $r = $t->run_in('old', @$cmd);
    ok($r->{ok}, "$cmd->[0] $cmd->[1]") or diag($r->{output});
}
my $r = $t->http_get('old', 'http://100.64.0.1/big', timeout => 60);
ok($r->ok, 'ten megabytes') or diag($r->text);
is($r->size, 10_000_000, 'all of them');
ok($t->ctl('ping', 'old')->{ok}, 'and our ping to it');
$daemon->stop;

$t->done_testing;
