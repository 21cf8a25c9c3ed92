# Nothing that a client says makes or changes an identity: X-Forwarded-For with
# realip, "Tailscale-" headers, PROXY protocol, a source address of the mesh on
# an ordinary listener.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $bob = $t->node('bob', user => 'bob@example.com');

$t->netmap('web.json', self => $web, peers => [$alice, $bob]);
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    underscores_in_headers on;
    ignore_invalid_headers off;
    root %%TESTDIR%%/html;
    set_real_ip_from 0.0.0.0/0;
    set_real_ip_from ::/0;
    set_real_ip_from unix:;

    log_format who '$remote_addr|$tailnet_user|$tailnet_ip|$tailnet_identity';
    access_log %%TESTDIR%%/who.log who;

    server {
        tailnet_listen 80;
        tailnet_listen 82 http2;
        listen 80;
        listen 82 http2;
        real_ip_header X-Forwarded-For;
        add_header X-User $tailnet_user always;
        add_header X-Ip $tailnet_ip always;
        add_header X-Remote $remote_addr always;
        add_header X-Login "$http_tailscale_user_login" always;

        location / {
            tailnet_acl accept alice@example.com;
        }
        location /addr {
            tailnet_acl accept 100.64.0.2;
            try_files /index.html =404;
        }
        location /open { try_files /index.html =404; }
        location /echo {
            proxy_pass http://127.0.0.1:8000/echo;
        }
        location /told {
            tailnet_headers on;
            proxy_pass http://127.0.0.1:8000/echo;
        }
    }
    server {
        tailnet_listen 81 proxy_protocol;
        listen 81 proxy_protocol;
        real_ip_header proxy_protocol;
        add_header X-User $tailnet_user always;
        add_header X-Ip $tailnet_ip always;
        add_header X-Remote $remote_addr always;
        location / { tailnet_acl accept alice@example.com; }
        location /addr {
            tailnet_acl accept 100.64.0.2;
            try_files /index.html =404;
        }
        location /open { try_files /index.html =404; }
    }
}
EOF
$t->run;
$t->start_httpd('host', addr => '127.0.0.1');
$t->start_wgpeer($_, peers => [$web]) for $alice, $bob;
$t->wait_http($_, 'http://100.64.0.1/open') for qw(alice bob);

my $home = $t->underlay('host');
my $mesh = '100.64.0.1';

# ask(who, url, options): "status user address-of-the-mesh remote_addr".
sub ask ($who, $url, %o) {
    my $r = $t->http_get($who, $url, %o);
    return join ' ', $r->status,
        map { $r->header($_) || '-' } qw(x-user x-ip x-remote);
}

# X-Forwarded-For: nginx believes it, tailnet does not.
my @xff = (headers => ['X-Forwarded-For: 100.64.0.2']);
is(ask('bob', "http://$mesh/", @xff),
    '403 bob@example.com 100.64.0.3 100.64.0.2', 'a peer says it is another');
is(ask('bob', "http://$mesh/addr", @xff),
    '403 bob@example.com 100.64.0.3 100.64.0.2', 'address selector');
is(ask('alice', "http://$mesh/", headers => ['X-Forwarded-For: 100.64.0.3']),
    '200 alice@example.com 100.64.0.2 100.64.0.3', 'or is told it is');
is(ask('alice', "http://$mesh/", headers => ['X-Forwarded-For: 192.0.2.1']),
    '200 alice@example.com 100.64.0.2 192.0.2.1', 'or from elsewhere');
is(ask('bob', "http://$mesh:82/", @xff, curl => ['--http2-prior-knowledge']),
    '403 bob@example.com 100.64.0.3 100.64.0.2', 'HTTP/2');
is(ask('host', "http://$home/", @xff), '403 - - 100.64.0.2',
    'a client of the host says it is a peer');
is(ask('host', "http://$home/addr", @xff), '403 - - 100.64.0.2',
    'address selector');
is(ask('host', "http://$home/open", @xff), '200 - - 100.64.0.2',
    'and is nobody to the variables');

# PROXY protocol.  curl sends the addresses of its own connection.
is(ask('alice', "http://$mesh:81/", curl => ['--haproxy-protocol']),
    '200 alice@example.com 100.64.0.2 100.64.0.2', 'PROXY: who it is');

# proxied(who, to, line): the head of the answer to a request behind the line.
sub proxied ($who, $to, $line, $path = '/') {
    my $r = $t->run_in($who, $^X, '-MIO::Socket::IP', '-e', <<'EOF',
my $s = IO::Socket::IP->new(PeerHost => $ARGV[0], PeerPort => 81) or die $@;
syswrite $s, "$ARGV[1]\r\nGET $ARGV[2] HTTP/1.0\r\n\r\n";
local $/;
print scalar <$s>;
EOF
        $to, $line, $path);
    my %h = map { lc($_->[0]) => $_->[1] } map { [/^(X-\w+): (.*?)\r?$/] }
        grep { /^X-/ } split /\n/, $r->{stdout};
    my ($status) = $r->{stdout} =~ m{^HTTP/1\.\d (\d+)};
    return join ' ', $status // 'none',
        map { $h{$_} // '-' } qw(x-user x-ip x-remote);
}

my $line = 'PROXY TCP4 100.64.0.2 100.64.0.1 4711 81';
is(proxied('bob', $mesh, $line), '403 bob@example.com 100.64.0.3 100.64.0.2',
    'PROXY: a peer says it is another');
is(proxied('bob', $mesh, $line, '/addr'),
    '403 bob@example.com 100.64.0.3 100.64.0.2', 'address selector');
is(proxied('alice', $mesh, 'PROXY TCP4 192.0.2.1 100.64.0.1 4711 81'),
    '200 alice@example.com 100.64.0.2 192.0.2.1', 'or from elsewhere');
is(proxied('alice', $mesh, 'PROXY UNKNOWN'),
    '200 alice@example.com 100.64.0.2 100.64.0.2', 'or nowhere');
is(proxied('host', $home, $line), '403 - - 100.64.0.2',
    'PROXY: a client of the host says it is a peer');
is(proxied('host', $home, $line, '/addr'), '403 - - 100.64.0.2',
    'address selector');
is(proxied('host', $home, $line, '/open'), '200 - - 100.64.0.2',
    'and is nobody to the variables');

# A real source address of the mesh, on an ordinary listener of the same port.
my $stranger = $t->underlay('stranger');
for my $cmd (
    ['stranger', qw(ip addr add 100.64.0.2/32 dev lo)],
    ['host', qw(ip route add 100.64.0.2 via), $stranger],
) {
    my ($who, @cmd) = @$cmd;
    my $r = $t->run_in($who, @cmd);
    ok($r->{ok}, "@cmd") or diag($r->{output});
}
my @from = (curl => ['--interface', '100.64.0.2']);
is(ask('stranger', "http://$home/open", @from), '200 - - 100.64.0.2',
    'a mesh source address on the host');
is(ask('stranger', "http://$home/", @from), '403 - - 100.64.0.2',
    'gives no rights');
is(ask('stranger', "http://$home/addr", @from), '403 - - 100.64.0.2',
    'nor by address');
is(ask('alice', "http://$mesh/addr"),
    '200 alice@example.com 100.64.0.2 100.64.0.2', 'as it gives the peer');

# Headers: before applications and variables see them, on every listener.
my @names = ('Tailscale-User-Login', 'tailscale-user-login',
    'TAILSCALE-USER-LOGIN', 'Tailscale_User_Login', 'tailscale_User-Login',
    'TailScale-User-Name', 'Tailscale-App-Capabilities', 'Tailscale-Whatever',
    'Tailscale.User.Login', 'Tailscale-');
my @spoof = (headers => [(map { "$_: alice\@example.com" } @names),
    'X-Tailscale-User: kept', 'Tailscaled: kept', 'Accept: text/x',
    map { "X-Filler-$_: $_" } 1 .. 30]);

for my $case (
    [bob => "http://$mesh/echo"],
    [bob => "http://$mesh:82/echo", '--http2-prior-knowledge'],
    [host => "http://$home/echo"],
    [host => "http://$home:82/echo", '--http2-prior-knowledge'],
    [host => "http://$home/told"],
) {
    my ($who, $url, @curl) = @$case;
    my $r = $t->http_get($who, $url, @spoof, curl => \@curl);
    is($r->status, 200, "$who $url");
    unlike($r->body, qr/^tailscale\W/mi, 'no such header gets through')
        or diag($r->body);
    unlike($r->body, qr/alice/, 'and no such value');
    is($r->header('x-login') // '', '', 'nor into a variable');
    like($r->body, qr/^X-Tailscale-User: kept\r$/mi, 'a name inside is kept');
    like($r->body, qr/^Tailscaled: kept\r$/mi, 'and a longer word');
    like($r->body, qr/^Accept: text\/x\r$/mi, 'and what nginx knows');
    is(() = $r->body =~ /^X-Filler-\d+: \d+\r$/mgi, 30, 'and all others');
}

my $r = $t->http_get('bob', "http://$mesh/told", @spoof);
is_deeply([$r->body =~ /^Tailscale-User-Login: (.*?)\r$/mgi],
    ['bob@example.com'], "tailnet_headers: the module's own, once");
unlike($r->body, qr/alice/, 'and nothing of the spoofed');

like($t->read_log('who.log'),
    qr{^100\.64\.0\.2\|bob\@example\.com\|100\.64\.0\.3\|bob\@example\.com/}m,
    'the access log tells both');

$t->done_testing;
