# HTTP/3 on the mesh: identity, access, and rights that go away.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $python = "$FindBin::Bin/../build/venv/bin/python";

if (!$t->has('http_v3_module')) {
    # Debian 12's nginx: nothing of this exists there.
    pass('this nginx knows no HTTP/3');
    $t->done_testing;
    exit;
}
Test::Tailnet::skip("needs aioquic in build/venv") if !-x $python;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $bob = $t->node('bob', user => 'bob@example.com');
$t->netmap('web.json', self => $web, peers => [$alice, $bob]);
$t->run_in('host', 'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
    'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=web', '-days', '2',
    '-keyout', $t->testdir . '/tls.key', '-out', $t->testdir . '/tls.pem');
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
$t->write_file('html/slow', 'x' x 100_000);
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
        tailnet_listen 443 quic;
        tailnet_listen 443 ssl;
        http2 on;
        ssl_certificate      %%TESTDIR%%/tls.pem;
        ssl_certificate_key  %%TESTDIR%%/tls.key;
        location / {
            tailnet_acl accept alice@example.com;
            root %%TESTDIR%%/html;
        }
        location = /slow {
            tailnet_acl accept alice@example.com;
            limit_rate 2k;
            root %%TESTDIR%%/html;
        }
        location = /who {
            tailnet_acl accept *;
            tailnet_headers on;
            proxy_pass http://127.0.0.1:8000/echo;
        }
    }
}
EOC
$t->run;
$t->start_httpd('host', addr => '127.0.0.1');
$t->start_wgpeer($_, peers => [$web]) for $alice, $bob;

my $script = "$FindBin::Bin/../tests/peers/h3.py";

sub h3 ($who, $url) { $t->run_in($who, $python, $script, $url)->{stdout} }

is(h3('alice', 'https://100.64.0.1:443/index.html'), "200 hello\n",
    'alice over HTTP/3');
is(h3('alice', 'https://[fd7a:115c:a1e0::1]:443/index.html'), "200 hello\n",
    'over IPv6');
like(h3('bob', 'https://100.64.0.1:443/index.html'), qr/^403 /, 'bob is refused');
like(h3('bob', 'https://100.64.0.1:443/who'),
    qr/^Tailscale-User-Login: bob\@example.com\r?$/m, 'but known by name');
is($t->run_in('alice', 'curl', '-sk', '--http2', '-o', '/dev/null', '-w',
    '%{http_version} %{response_code}', 'https://100.64.0.1/index.html')->{stdout},
    '2 200', 'HTTP/2 beside it');

my $idle = $t->spawn('alice', [$python, $script,
    'https://100.64.0.1:443/index.html', 100, 0.1], name => 'idle');
my $busy = $t->spawn('alice', [$python, $script,
    'https://100.64.0.1:443/slow'], name => 'busy');
ok($idle->wait_stdout(qr/(?:200 hello\n){3}/, 10), 'a connection stays open');
ok($busy->alive, 'a download runs');
my $mark = $t->log_mark;
$t->netmap('web.json', self => $web,
    peers => [{ %$alice, user => 'eve@example.com' }, $bob]);
ok($idle->wait_stdout(qr/^403 /m, 5), 'the next request is not alice\'s any more');
ok(defined $busy->wait(5), 'the download ends');
unlike($busy->stdout, qr/^200/, 'before its end');
ok($t->wait_for_log(qr/"eve\@example.com" \(alice/, 2, from => $mark),
    'with a line in the log');
$idle->stop;
like(h3('bob', 'https://100.64.0.1:443/who'), qr/^200 /, "bob's go on");

$t->done_testing;
