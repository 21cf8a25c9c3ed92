# Names before nginx's own name lead to nodes: with a server_name that is a
# regular expression, and with $tailnet_subdomain.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app);

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
my $alpha = $t->node('alpha');
my $beta = $t->node('beta-2');
$t->netmap('web.json', self => $web, peers => [$alice, $alpha, $beta]);

$t->write_config(<<'EOF');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    upstream mesh { tailnet_server $svc:8000; }
    upstream subdomain { tailnet_server $tailnet_subdomain:8000; }
    server {
        tailnet_listen 80 default_server;
        return 200 "default $host\n";
    }
    server {
        tailnet_listen 80;
        server_name ~^(?<svc>[a-z0-9-]+)\.web\.;
        location / { tailnet_acl accept *; proxy_pass http://mesh; }
    }
    server {
        tailnet_listen 81;
        listen 127.0.0.1:8080;
        add_header X-Subdomain "<$tailnet_subdomain>" always;
        location / { proxy_pass http://subdomain; }
        location = /only { return 200 "ok\n"; }
    }
}
EOF
$t->run;
$t->start_wgpeer($alice, peers => [$web]);
for my $peer ($alpha, $beta) {
    $t->start_wgpeer($peer, peers => [$web]);
    start_app($t, $peer->{name});
}

sub asks ($host, $port, $path = '') {
    return $t->http_get('alice', "http://100.64.0.1:$port/$path",
        headers => ["Host: $host"]);
}

# Host: who answers by the regular expression, by $tailnet_subdomain.
my @hosts = (
    ['alpha.web.tailnet.test', 'alpha', 'alpha'],
    ['beta-2.web.tailnet.test', 'beta-2', 'beta-2'],
    ['ALPHA.Web.tailnet.test', 'alpha', 'alpha'],
    ['alpha.web.tailnet.test:80', 'alpha', 'alpha'],
    ['alpha.web.tailnet.test.', 'alpha', 'alpha'],
    ['alpha.web.example.com', 'alpha', 'alpha'],
    ['alpha.web', 'default', 'alpha'],
    ['web.tailnet.test', 'default', 502],
    ['web', 'default', 502],
    ['nobody.web.tailnet.test', 502, 502],
    ['web.web.tailnet.test', 502, 502],
    ['alpha.beta-2.web.tailnet.test', 'default', 502],
    ['alpha.webb.tailnet.test', 'default', 502],
    ['alpha.tailnet.test', 'default', 502],
    ['100.64.0.1', 'default', 502],
);
for my $case (@hosts) {
    my ($host, @expected) = @$case;
    for my $port (80, 81) {
        my $r = asks($host, $port);
        my $got = $r->status == 200 ? (split ' ', $r->body)[0] : $r->status;
        is($got, shift @expected, "$host, port $port");
    }
}

my %subdomain = (
    'alpha.web.tailnet.test' => 'alpha',
    'a.b.web.tailnet.test' => 'a.b',
    'Alpha.web' => 'alpha',
    'x.web.example.com' => 'x',
    'web.web.tailnet.test' => 'web',
    'web.tailnet.test' => '',
    'web' => '',
    'xweb.tailnet.test' => '',
    'x.websites.test' => '',
    'x.lab.test' => '',
    '.web.tailnet.test' => '',
);
for my $host (sort keys %subdomain) {
    my $r = asks($host, 81, 'only');
    is($r->header('x-subdomain'), "<$subdomain{$host}>",
        "\$tailnet_subdomain of $host");
}
is($t->http_get('host', 'http://127.0.0.1:8080/only', headers =>
    ['Host: alpha.web.tailnet.test'])->header('x-subdomain'), '<>',
    'there is none on a listener that is not on the mesh');

$t->done_testing;
