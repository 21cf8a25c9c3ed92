# What applications are told about who asks, and that nobody can tell them
# anything else.

use v5.36;
use utf8;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app);

my $t = Test::Tailnet->new;

# Made with mime.QEncoding.Encode("utf-8", name) of Go.
my %encoded = (
    'Zoë Müller' => '=?utf-8?q?Zo=C3=AB_M=C3=BCller?=',
    'a=b?c_d é' => '=?utf-8?q?a=3Db=3Fc=5Fd_=C3=A9?=',
    "Tab\tin" => "Tab\tin",
    "a\x7fb" => '=?utf-8?q?a=7Fb?=',
    "line\r\nTailscale-Tags: tag:admin" =>
        '=?utf-8?q?line=0D=0ATailscale-Tags:_tag:admin?=',
    'x€' . 'a' x 89 =>
        '=?utf-8?q?x=E2=82=AC' . 'a' x 53 . '?= '
        . '=?utf-8?q?' . 'a' x 36 . '?=',
    '日本語の名前はとても長いのでいくつもの語に分かれます' =>
        '=?utf-8?q?=E6=97=A5=E6=9C=AC=E8=AA=9E=E3=81=AE=E5=90=8D=E5=89=8D'
        . '=E3=81=AF?= '
        . '=?utf-8?q?=E3=81=A8=E3=81=A6=E3=82=82=E9=95=B7=E3=81=84=E3=81=AE'
        . '=E3=81=A7?= '
        . '=?utf-8?q?=E3=81=84=E3=81=8F=E3=81=A4=E3=82=82=E3=81=AE=E8=AA=9E'
        . '=E3=81=AB?= '
        . '=?utf-8?q?=E5=88=86=E3=81=8B=E3=82=8C=E3=81=BE=E3=81=99?=',
    '😀' x 7 . ' end' => '=?utf-8?q?' . '=F0=9F=98=80' x 5 . '?= '
        . '=?utf-8?q?' . '=F0=9F=98=80' x 2 . '_end?=',
);

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $runner = $t->node('runner', tags => ['tag:ci', 'tag:dev']);
my @rules = map { {
    SrcIPs => ['*'],
    DstPorts => [{ IP => '*', Ports => { First => 0, Last => 65535 } }],
} } 1;

# netmap(display name): alice is called so.
sub netmap ($name) {
    $t->netmap('web.json', self => $web, peers => [$alice, $runner],
        users => { 'alice@example.com' => { DisplayName => $name,
            ProfilePicURL => 'https://pics.example.com/alice.png' } },
        extra => { PacketFilter => [@rules, {
            SrcIPs => ["$alice->{addr}[0]/32"],
            CapGrant => [{ Dsts => ["$web->{addr}[0]/32"],
                CapMap => { 'example.com/cap/app' =>
                    [{ role => 'editor', team => 'Ärzte' }] } }],
        }] });
}
netmap('Alice Liddell');

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
    server {
        tailnet_listen 80;
        listen 127.0.0.1:8080;
        proxy_set_header Host $host;
        location /default { proxy_pass http://127.0.0.1:8100/echo; }
        location /on {
            tailnet_headers on;
            proxy_pass http://127.0.0.1:8100/echo;
            location /on/nested {
                proxy_pass http://127.0.0.1:8100/echo;
            }
            location /on/off {
                tailnet_headers off;
                proxy_pass http://127.0.0.1:8100/echo;
            }
        }
        location /on-to-off {
            tailnet_headers on;
            try_files /nothing /default;
        }
        location /off-to-on { try_files /nothing /on; }
        location /on-to-on {
            tailnet_headers on;
            try_files /nothing /on;
        }
        location /error {
            tailnet_headers on;
            proxy_intercept_errors on;
            error_page 404 = /default;
            proxy_pass http://127.0.0.1:8100/missing;
        }
    }
    server {
        tailnet_listen 81;
        tailnet_headers on;
        location / { proxy_pass http://127.0.0.1:8100/echo; }
    }
    server {
        tailnet_listen 82;
        location /asks {
            auth_request /told;
            auth_request_set $told $upstream_http_x_got;
            add_header X-Told $told always;
            proxy_pass http://127.0.0.1:8100/echo;
        }
        location = /told {
            internal;
            tailnet_headers on;
            proxy_pass http://127.0.0.1:8000/;
        }
        location /tells {
            tailnet_headers on;
            auth_request /not-told;
            auth_request_set $told $upstream_http_x_got;
            add_header X-Told $told always;
            proxy_pass http://127.0.0.1:8100/echo;
        }
        location = /not-told {
            internal;
            proxy_pass http://127.0.0.1:8000/;
        }
    }
}
EOF
$t->start_httpd('host', addr => '127.0.0.1', port => 8100);
start_app($t, 'host', name => 'auth', answer =>
    'add_header X-Got "$http_tailscale_user_login,"; return 200 "";');
$t->run;
$t->start_wgpeer($_, peers => [$web]) for $alice, $runner;

# told(who, url): the request's header lines that look like ours, as the
# application got them.
sub told ($who, $url, @headers) {
    my $r = $t->http_get($who, $url, headers => \@headers);
    is($r->status, 200, "$who $url") or diag($r->text);
    my @lines = grep { /^tailscale/i } split /\r\n/, $r->body;
    return { map { split /: /, $_, 2 } @lines };
}
my $mesh = 'http://100.64.0.1';

my $of_alice = {
    'Tailscale-User-Login' => 'alice@example.com',
    'Tailscale-User-Name' => 'Alice Liddell',
    'Tailscale-User-Profile-Pic' => 'https://pics.example.com/alice.png',
    'Tailscale-App-Capabilities' => '=?utf-8?q?'
        . '{"example.com/cap/app":[{"role":"editor","team":"=C3=84rzte"}]}?=',
    'Tailscale-Node' => 'alice.tailnet.test',
};
my $of_runner = {
    'Tailscale-Node' => 'runner.tailnet.test',
    'Tailscale-Tags' => 'tag:ci,tag:dev',
};

is_deeply(told('alice', "$mesh/default"), {}, 'off by default');
is_deeply(told('alice', "$mesh/on"), $of_alice, 'a person');
is_deeply(told('runner', "$mesh/on"), $of_runner,
    'a tagged node has tags, no user, and no capabilities here');
is_deeply(told('alice', "$mesh/on/nested"), $of_alice, 'inherited');
is_deeply(told('alice', "$mesh/on/off"), {}, 'turned off inside');
is_deeply(told('alice', "$mesh:81/"), $of_alice, 'on for a server');
is_deeply(told('host', 'http://127.0.0.1:8080/on'), {},
    'nothing about a client that is not from the mesh');

my @lies = ('Tailscale-User-Login: root@example.com', 'tailscale-tags: tag:x',
    'TAILSCALE-NODE: x', 'Tailscale_User_Login: root@example.com',
    'tailscale_User-name: Root', 'Tailscale-Anything: x', 'X-Kept: yes');
is_deeply(told('alice', "$mesh/default", @lies), {}, 'lies are taken away');
is_deeply(told('alice', "$mesh/on", @lies), $of_alice, 'where it is on, too');
is_deeply(told('runner', "$mesh/on", @lies), $of_runner, 'of a tagged node');
is_deeply(told('host', 'http://127.0.0.1:8080/default', @lies), {},
    'and on listeners that are not on the mesh');
is_deeply(told('host', 'http://127.0.0.1:8080/on', @lies), {},
    'also where it is on');
my $r = $t->http_get('alice', "$mesh/on",
    headers => [@lies, map { "X-Many-$_: $_" } 1 .. 50]);
like($r->body, qr/^X-Kept: yes\r$/m, 'other headers stay');
is(() = $r->body =~ /^X-Many-\d+: \d+\r$/mg, 50, 'many of them');

# HTTP/1.0 needs no header at all.
for my $case (['none of its own'], ['none but a lie', 'Tailscale-Tags: tag:x'])
{
    my ($name, @own) = @$case;
    $r = $t->http_get('alice', "$mesh/on", curl => ['--http1.0'],
        headers => ['Host:', 'User-Agent:', 'Accept:', @own]);
    my %got = map { split /: /, $_, 2 } (split /\r\n/, $r->body)[1 .. 6];
    is_deeply([\%got, $r->body =~ /\r\n\r\n(.*)\z/s],
        [{ %$of_alice, Connection => 'close' }, ''],
        "a request with headers: $name") or diag($r->text, $r->body);
}

is_deeply(told('alice', "$mesh/on-to-off", @lies), {},
    'redirected to a location that is not to know');
is_deeply(told('alice', "$mesh/off-to-on", @lies), $of_alice,
    'redirected to one that is');
is_deeply(told('alice', "$mesh/on-to-on", @lies), $of_alice,
    'from one that is to one that is: each header once');
is_deeply(told('alice', "$mesh/error", @lies), {}, 'an error page');

SKIP: {
    skip 'needs auth_request', 4 if !$t->has('http_auth_request_module');
    $r = $t->http_get('alice', "$mesh:82/asks", headers => \@lies);
    is($r->header('x-told'), 'alice@example.com,',
        'a subrequest is told where its location says so');
    unlike($r->body, qr/^tailscale/im, 'the request itself is not');
    $r = $t->http_get('alice', "$mesh:82/tells", headers => \@lies);
    is($r->header('x-told'), ',', 'a subrequest is not told');
    like($r->body, qr/^Tailscale-User-Login: alice\@example\.com\r$/m,
        'the request is');
}

# Names that aren't ASCII.
for my $name (sort keys %encoded) {
    netmap($name);
    my $got;
    Test::Tailnet::Process::until_true(3, sub {
        my $body = $t->http_get('alice', "$mesh/on")->body;
        ($got) = $body =~ /^Tailscale-User-Name: (.*)\r$/m;
        return ($got // '') eq $encoded{$name};
    });
    utf8::encode(my $text = $name =~ s/([\x00-\x1f\x7f])/sprintf '\x%02x',
        ord $1/ger);
    is($got, $encoded{$name}, "the name $text");
}

$t->done_testing;
