# TLS to nodes of the mesh: names are verified, sessions used again, also when
# the netmap changes in between; and a WebSocket through a tailnet_server.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app);

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my ($alpha, $beta) = map { $t->node($_) } qw(alpha beta);
$t->netmap('web.json', self => $web, peers => [$alpha, $beta]);

my $dir = $t->testdir;
my $made = $t->run_in('host', qw(openssl req -x509 -newkey ec -pkeyopt
    ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=app.test -addext
    subjectAltName=DNS:app.test -keyout), "$dir/app.key", '-out',
    "$dir/app.crt");
ok($made->{ok}, 'a certificate') or diag($made->{output});

$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    upstream app   { tailnet_server alpha:8443; }
    upstream fresh { tailnet_server alpha:8443; }
    upstream kept  { tailnet_server alpha:8443; keepalive 4; }
    upstream named { tailnet_server $arg_to:8443; }
    upstream ws    { tailnet_server beta:8000; }

    proxy_ssl_trusted_certificate %%TESTDIR%%/app.crt;
    proxy_ssl_verify on;
    proxy_ssl_name app.test;
    proxy_ssl_server_name on;
    proxy_http_version 1.0; # a connection for each request
    server {
        listen 127.0.0.1:8080;
        location /app { proxy_pass https://app; }
        location /fresh {
            proxy_ssl_session_reuse off;
            proxy_pass https://fresh;
        }
        location /kept {
            proxy_pass https://kept;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
        location /named { proxy_pass https://named; }
        location /other {
            proxy_ssl_name other.test;
            proxy_pass https://app;
        }
        location /ws {
            proxy_pass http://ws;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
        }
    }
}
EOF
$t->run;
$t->start_wgpeer($_, peers => [$web]) for $alpha, $beta;
start_app($t, 'alpha', port => 8443, listen => 'ssl',
    server => "ssl_certificate $dir/app.crt; ssl_certificate_key $dir/app.key;"
        . ' ssl_session_cache shared:TLS:1m; '
        . ' ssl_protocols TLSv1.2 TLSv1.3;',
    answer => 'return 200 '
        . '"$ssl_server_name $ssl_protocol $ssl_session_reused $connection";');

sub asks ($path) { $t->http_get('host', "http://127.0.0.1:8080/$path") }

# said(path): the name asked for, and whether the session was known.
sub said ($path) { [(split ' ', asks($path)->body)[0, 2]] }

is_deeply(said('app'), ['app.test', '.'], 'TLS over the mesh');
is_deeply(said('app'), ['app.test', 'r'], 'the session is used again');
is_deeply(said('app'), ['app.test', 'r'], 'and again');

# A new netmap: the peers of the upstream are made anew.
my $more = $t->node('more');
$t->netmap('web.json', self => $web, peers => [$more, $alpha, $beta]);
ok(Test::Tailnet::Process::until_true(3,
    sub { $t->ctl('status')->{stdout} =~ /more/ }), 'another netmap');
is_deeply(said('app'), ['app.test', 'r'], 'the session has stayed') for 1 .. 3;

is_deeply(said('fresh'), ['app.test', '.'], 'proxy_ssl_session_reuse off')
    for 1 .. 2;
my @kept = map { (split ' ', asks('kept')->body)[3] } 1 .. 3;
is(keys %{ { map { $_ => 1 } @kept } }, 1, 'keepalive with TLS');
is_deeply(said('named?to=alpha'), ['app.test', '.'], 'a name with variables')
    for 1 .. 2;

my $mark = $t->log_mark;
is(asks('other')->status, 502, 'another name is not accepted');
like($t->log_since($mark),
    qr/upstream SSL certificate does not match "other.test"/,
    'the log says so');

# WebSocket: beta serves, a client on nginx's host talks.
my $script = "$FindBin::Bin/lib/Test/Tailnet/websocket.pl";
my $echo = $t->spawn('beta', [$^X, $script, 'serve', '0.0.0.0', 8000],
    name => 'echo');
ok($echo->wait_stdout(qr/^ready$/m, 5), 'a WebSocket server');
my $talk = $t->spawn('host', [$^X, $script, 'connect', '127.0.0.1', 8080,
    '/ws'], name => 'talk');
ok($talk->wait_stdout(qr/^open$/m, 5), 'a frame goes there and back')
    or diag($talk->stdout, $talk->stderr);
# It outlives a reload, in the old worker, as with any upstream.
ok($t->reload, 'a reload');
is(asks('app')->status, 200, 'the new worker serves');
ok($talk->alive && $talk->stdout !~ /closed/, 'the WebSocket goes on');
$mark = $t->log_mark;
$t->netmap('web.json', self => $web, peers => [$alpha]);
ok($talk->wait_stdout(qr/^closed$/m, 3),
    'and ends with the node that it went to');
like($t->log_since($mark), qr/closed the connection to 100.64.0.3:8000/,
    'the log says why');

# The server hears of it when it can be reached again.
$t->netmap('web.json', self => $web, peers => [$alpha, $beta]);
ok($echo->wait_stdout(qr/^closed 1$/m, 10), 'the server has closed it, too');

$t->done_testing;
