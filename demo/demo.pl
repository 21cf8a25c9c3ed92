# demo [--once]: nginx inside a mesh of network namespaces, and who asks what
# and gets what.  With --once it ends, with 0 if every row is as expected.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/../t/lib";

use Test::Tailnet;

$ENV{TAILNET_NO_SKIP} = 1;
my $once = grep { $_ eq '--once' } @ARGV;
my $t = Test::Tailnet->new;
my $bad = 0;

# ---- the mesh ----

my $web = $t->nginx_node('web');
my $laptop = $t->node('laptop', user => 'alice@example.com');
my $ci = $t->node('ci', tags => ['tag:ci']);
my $guest = $t->node('guest', user => 'bob@example.com');
my $gpu = $t->node('gpu-box', tags => ['tag:gpu']);
my $phone = $t->node('phone', user => 'alice@example.com');
my %users = ('alice@example.com' => { DisplayName => 'Alice Liddell' });

# Clients have endpoints in nobody's netmap, as behind a NAT; gpu-box has one.
$t->netmap('web.json', self => $web, users => \%users,
    peers => [$gpu, map { { %$_, endpoints => [] } } $laptop, $ci, $guest, $phone]);

# ---- three small services ----

mkdir $t->testdir . '/models' or die "models: $!";
$t->write_file('models/index.html', "a model on gpu-box\n");
my $tools = "$FindBin::Bin/../t/lib/Test/Tailnet";
$t->start_httpd('host', addr => '127.0.0.1', port => 8000);
$t->spawn('host', [$^X, "$tools/websocket.pl", 'serve', '127.0.0.1', 8001],
    name => 'chat')->wait_stdout(qr/ready/, 5) or die "no websocket server\n";
$t->start_tailnetd_client($gpu, peers => [$web],
    rules => [{ src => ['100.64.0.1'], dst => ['*:11434'] }]);
$t->start_httpd('gpu-box', addr => '100.64.0.5', port => 11434,
    root => $t->testdir . '/models');

# ---- nginx ----

$t->run_in('host', 'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
    'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=web.tailnet.test',
    '-days', '2', '-keyout', $t->testdir . '/tls.key',
    '-out', $t->testdir . '/tls.pem')->{ok} or die "no certificate\n";
$t->write_config(<<'CONF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    upstream models {
        tailnet_server gpu-box:11434;        # by its name in the mesh
        keepalive 8;
    }
    server {
        tailnet_listen 80;
        tailnet_listen 443 ssl http2;
        ssl_certificate      %%TESTDIR%%/tls.pem;
        ssl_certificate_key  %%TESTDIR%%/tls.key;
        add_header X-Rule $tailnet_acl always;

        location = /echo {
            tailnet_acl accept alice@example.com tag:ci;
            tailnet_limit_req rate=50r/s burst=50 nodelay;
            tailnet_limit_req rate=1r/m for=tag:ci;
            tailnet_headers on;
            proxy_pass http://127.0.0.1:8000;
        }
        location /models/ {
            tailnet_acl accept tag:ci alice@example.com;
            proxy_pass http://models/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
        location /chat {
            tailnet_acl accept *;
            proxy_pass http://127.0.0.1:8001;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }
        location = /tailnet {
            tailnet_acl accept autogroup:member;
            tailnet_status;
        }
    }
}
CONF
$t->run;
$t->start_tailnetd_client($_, peers => [$web],
    rules => [{ src => ['100.64.0.1'], dst => ['*:*'] }])
    for $laptop, $ci, $guest;
$t->start_wgpeer($phone, peers => [$web]);

# ---- who asks what ----

sub row ($who, $asks, $want, $got) {
    my $good = $want eq $got;

    $bad++ if !$good;
    printf "%-8s %-38s %-52s %s\n", $who, $asks, $got,
        $good ? '' : "NOT as expected: $want";
}

sub ask ($who, $asks, $url, $want, $of, %o) {
    my $r = $t->http_get($who, $url, %o);

    row($who, $asks, $want, $of->($r) || join ' ', $r->status, $r->error);
}

sub headers ($r) {
    my %h = $r->body =~ /^Tailscale-([\w-]+): (.*?)\r?$/mg;

    return $r->status if !%h;
    return join ' ', $r->status, 'as', $h{Tags} // "$h{'User-Login'} ($h{'User-Name'})",
        'on', $h{Node} =~ s/\..*//r;
}

sub why ($r) { join ': ', $r->status, $r->header('x-rule') // () }
sub everybody ($when) {
    ask('laptop', "the app $when", 'http://100.64.0.1/echo',
        '200 as alice@example.com (Alice Liddell) on laptop', \&headers);
    ask('phone', "the app, by wireguard-go $when", 'http://100.64.0.1/echo',
        '200 as alice@example.com (Alice Liddell) on phone', \&headers);
    ask('guest', "the app $when", 'http://100.64.0.1/echo',
        '403: reject (no rule matched)', \&why);
}

printf "%-8s %-38s %s\n", qw(who asks gets);
everybody('');
ask('ci', 'the app', 'http://100.64.0.1/echo',
    '200 as tag:ci on ci', \&headers);
ask('ci', 'the app again', 'http://100.64.0.1/echo', '429, again in 60 s',
    sub ($r) { $r->status . ', again in ' . ($r->header('retry-after') // '?') . ' s' });
ask('ci', 'models, served by gpu-box', 'http://100.64.0.1/models/index.html',
    '200 a model on gpu-box', sub ($r) { $r->status . ' ' . $r->body =~ s/\n//r });
ask('guest', 'the status', 'http://100.64.0.1/tailnet',
    '200 application/json',
    sub ($r) { $r->status . ' ' . ($r->header('content-type') // '') });
row('laptop', 'the app, over HTTP/2 and TLS', 'HTTP/2 200',
    $t->run_in('laptop', 'curl', '-sk', '--http2', '-o', '/dev/null', '-w',
        'HTTP/%{http_version} %{response_code}', 'https://100.64.0.1/echo')->{stdout});
my $chat = $t->spawn('guest', [$^X, "$tools/websocket.pl", 'connect',
    '100.64.0.1', 80, '/chat'], name => 'talk');
row('guest', 'a WebSocket', 'echoes',
    $chat->wait_stdout(qr/^open$/m, 5) ? 'echoes' : 'nothing: ' . $chat->stdout);

row('nginx', 'reloads', 'done', $t->reload ? 'done' : 'refused');
everybody('after it');
$t->expect_alert(qr/engine \d+ was killed by signal 9/);
my $engine = $t->engine($t->holder) // die "no engine\n";
my $next;
kill KILL => $engine;
Test::Tailnet::Process::until_true(5, sub {
    $next = $t->engine($t->holder);
    return $next && $next != $engine;
});
row('engine', 'is killed', 'another one starts',
    $next && $next != $engine ? 'another one starts' : 'none');
everybody('after that');
row('guest', 'the same WebSocket', 'still open',
    $chat->alive && $chat->stdout !~ /closed/ ? 'still open' : 'closed');

if (!$once) {
    my $curl = join ' ', $t->prefix('laptop'), 'curl -i http://100.64.0.1/echo';

    print "\nIt stays up until you press ^C.  Try, as laptop:\n  $curl\n",
        "look at it:\n  ", join(' ', $t->prefix('host'), $t->binary('tailnetctl'),
            '--socket', $t->testdir . '/nginx-tailnet/admin.sock', 'status'),
        "\nand change who may come in:\n  ", $t->testdir, "/nginx.conf, ",
        $t->testdir, "/web.json\n";
    sleep 3600 while 1;
}
exit($bad ? 1 : 0);
