# What others make of a node: a name that is taken, another address for one
# peer, and a peer that refuses connections and says why.
# control_names_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP qw(decode_json);
use Test::More;
use Test::Tailnet;

use constant { MASK => '100.99.1.7', MASK6 => 'fd7a:115c:a1e0::1:7' };

our $headscale;
my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);

my $control = $t->start_control(headscale => $headscale, keys => [
    { Key => 'key-web', User => 'ops@example.com', Reusable => \1 },
    { Key => 'key-alice', User => 'alice@example.com', Reusable => \1 }]);
$control->command('PUT', '/unique', JSON::PP::true);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOC");
tailnet_engine binary=%%TAILNETD%% level=info;
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/web;
    hostname     shop;
    port         41641;
}
events { }
http {
    upstream alice { tailnet_server alice:8000; }
    upstream box   { tailnet_server box:8000; }
    server {
        tailnet_listen 80;
        location / {
            tailnet_acl accept alice\@example.com;
            add_header X-Node \$tailnet_node;
            root %%TESTDIR%%/html;
        }
    }
    server {
        listen 127.0.0.1:8080;
        location ~ ^/(?<up>\\w+)\$ {
            proxy_pass http://\$up/index.html;
            proxy_connect_timeout 1s;
            proxy_next_upstream_tries 1;
        }
    }
}
EOC
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

# ---- somebody has that name already ----

my $shop = $t->start_tailscaled('shop', control => $control,
    key => 'key-alice');
$t->run;
ok($t->wait_for_log(
    qr/node "web": its name in the tailnet is "shop-1\.tailnet\.test", not "shop" as it asked for$/m,
    15), 'the log says which name it got') or diag($t->read_log);
my $s = decode_json($t->ctl('--json', 'status', 'web')->{stdout});
is($s->{nodes}[0]{self}{name}, 'shop-1.tailnet.test', 'status, too');
my ($web) = grep { $_->{Known}{Name} eq 'shop-1' } $control->nodes;
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;
my $id = $web->{Node}{ID};
my $mark = $t->log_mark;
$control->command('PATCH', "/nodes/$id", { Name => 'shop-2' });
ok($t->wait_for_log(qr/is "shop-2\.tailnet\.test"/, 10, from => $mark),
    'and when it gets another');
$mark = $t->log_mark;
$control->command('PATCH', "/nodes/$id", { User => 'alice@example.com' });
$control->command('PATCH', "/nodes/$id", { User => 'ops@example.com' });

# ---- one peer knows it by another address ----

my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');
$t->start_httpd('alice', root => $t->testdir . '/html');
my $r = $t->wait_http('alice', "http://$ip/index.html", 10);
is($r->status, 200, 'alice is let in') or diag($r->text);
unlike($t->log_since($mark), qr/its name in the tailnet/,
    'a name is told once');

$control->command('POST', "/nodes/$id/masquerade?peer=alice&as=" . MASK);
$r = $t->wait_http('alice', 'http://' . MASK . '/index.html', 10);
is($r->status, 200, 'by the address that alice knows') or diag($r->text);
is($r->header('x-node'), 'alice.tailnet.test', 'who is known as ever');
isnt($t->http_get('alice', "http://$ip/index.html", timeout => 2)->status, 200,
    'the own one is not there for her');
like($alice->ping(MASK, type => 'TSMP'), qr/^pong from /, 'pings pass');
$r = $t->ctl('ping', 'alice');
like($r->{output}, qr/^pong from /, 'the other way round, too');
ok(Test::Tailnet::Process::until_true(10, sub {
    $r = $t->http_get('host', 'http://127.0.0.1:8080/alice');
    return $r->status == 200;
}), 'and connections to alice') or diag($r->text);
is($r->body, "hello\n", 'which answer');
is($t->http_get('shop', "http://$ip/index.html", timeout => 10)->status, 200,
    'others know the own address');
$control->command('POST', "/nodes/$id/masquerade?peer=alice&as=" . MASK6);
$r = $t->wait_http('alice', 'http://[' . MASK6 . ']/index.html', 10);
is($r->status, 200, 'by IPv6 as well') or diag($r->text);
is($r->header('x-node'), 'alice.tailnet.test', 'who is known as ever');

# ---- a peer that refuses ----

$t->start_tailscaled('box', control => $control, key => 'key-alice',
    up => ['--shields-up']);
$t->start_httpd('box', root => $t->testdir . '/html');
ok(Test::Tailnet::Process::until_true(15, sub {
    $r = $t->http_get('host', 'http://127.0.0.1:8080/box');
    return $t->read_log =~ /refuses a connection/;
}), 'a peer refuses a connection') or diag($t->read_log);
isnt($r->status, 200, 'which fails');
like($t->read_log,
    qr/node "web": peer box\.tailnet\.test \([\d.]+\) refuses a connection to its TCP port 8000: it takes no connections \(shields up\)$/m,
    'and the log says why');

$t->done_testing;
