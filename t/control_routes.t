# Beyond the mesh: a subnet behind another node ("accept_routes"), everything
# by an exit node ("exit_node"), announced prefixes ("advertise_routes"), one of
# many subnets with the same addresses (4via6).
# control_routes_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

use constant SUBNET => '192.168.77.9';
use constant OUTSIDE => '203.0.113.9';
use constant VIA => '192-168-77-9-via-7';
use constant VIA_ROUTE => 'fd7a:115c:a1e0:b1a:0:7:c0a8:4d00/120';

our $headscale;
my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);

my $control = $t->start_control(headscale => $headscale, keys => [
    { Key => 'key-web', User => 'ops@example.com', Reusable => \1 },
    { Key => 'key-alice', User => 'alice@example.com', Reusable => \1 }]);

# ---- box leads to lan, which nobody else can reach ----

my $lan = $t->underlay('lan');
my $box = $t->start_tailscaled('box', control => $control, key => 'key-alice',
    up => ['--advertise-routes=192.168.77.0/24,' . VIA_ROUTE, '--advertise-exit-node']);
for ([lan => 'ip', 'address', 'add', SUBNET . '/32', 'dev', 'lo'],
    [lan => 'ip', 'address', 'add', OUTSIDE . '/32', 'dev', 'lo'],
    [box => 'ip', 'route', 'add', SUBNET . '/32', 'via', $lan],
    [box => 'ip', 'route', 'add', OUTSIDE . '/32', 'via', $lan],
    [box => 'sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward'])
{
    my ($who, @cmd) = @$_;
    my $r = $t->run_in($who, @cmd);
    $r->{ok} or die "@$_: $r->{output}";
}
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
$t->start_httpd('lan', root => $t->testdir . '/html');

# ---- nodes of nginx that may go there, and one that may not ----

$t->write_file('auth.key', "key-web\n", 0600);
my %node = (
    plain => 'advertise_routes 10.20.0.0/16 fd00:20::/64',
    routes => 'accept_routes on',
    exitname => 'exit_node box',
    exitaddr => 'exit_node ' . $box->ip,
);
my %to = (subnet => SUBNET, outside => OUTSIDE);
my %via = (via => VIA, suffix => VIA . '.tailnet.test',
    other => VIA . '.else.test', number => '[fd7a:115c:a1e0:b1a:0:7:c0a8:4d09]');
my ($nodes, $upstreams) = ('', '');
my $port = 41641;
for my $name (sort keys %node) {
    $nodes .= <<"EOC";
tailnet_node $name {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/$name;
    port         @{[$port++]};
    $node{$name};
}
EOC
    # Named in another order than they are defined in.
    $upstreams = "    upstream ${name}_$_ { tailnet_server $name/$to{$_}:8000; }\n"
        . $upstreams for sort keys %to;
}
$upstreams .= "    upstream $_ { tailnet_server routes/$via{$_}:8000; }\n"
    for sort keys %via;
$t->write_config(<<"EOC");
tailnet_engine binary=%%TAILNETD%%;
$nodes
events { }
http {
$upstreams
    upstream exit_via { tailnet_server exitname/@{[VIA]}:8000; }
    upstream name_via { tailnet_server routes/\$arg_name:8000; }
    upstream gone { tailnet_server routes/100.64.99.9:8000; }
    server {
        listen 127.0.0.1:8080;
        location ~ ^/(?<up>\\w+)\$ {
            proxy_pass http://\$up/index.html;
            proxy_connect_timeout 2s;
            proxy_next_upstream_tries 1;
        }
    }
}
EOC
$t->run;
for my $name (sort keys %node) {
    $control->wait_node($name, 15) or BAIL_OUT("$name has not joined");
}

sub asks ($up) { $t->http_get('host', "http://127.0.0.1:8080/$up") }

# reaches(upstream): waits; sessions begin, and netmaps come.
sub reaches ($up, $what) {
    my $r;

    ok(Test::Tailnet::Process::until_true(15, sub {
        $r = asks($up);
        return $r->status == 200;
    }), $what) or diag($r->text, $t->read_log);
    is($r->body, "hello\n", 'and answers');
}

is_deeply([sort $control->node('plain')->{Node}{Hostinfo}{RoutableIPs}->@*],
    ['10.20.0.0/16', 'fd00:20::/64'], 'announced prefixes');

isnt(asks("${_}_subnet")->status, 200, "$_: not before it is approved")
    for qw(routes exitname);
$control->command('POST', '/nodes/box/routes',
    ['192.168.77.0/24', VIA_ROUTE, '0.0.0.0/0', '::/0']);

reaches('routes_subnet', 'a subnet, by "accept_routes"');
reaches('exitname_outside', 'outside, by the name of an exit node');
reaches('exitaddr_outside', 'by its address');
isnt(asks('routes_outside')->status, 200, 'outside, without an exit node');
is(asks("plain_$_")->status, 502, "$_, without either") for sort keys %to;
like($t->read_log, qr/"203\.0\.113\.9" is the address of no node in the netmap/,
    'which is said');
is(asks('gone')->status, 502, 'an address of the mesh is not beyond it');

# ---- 4via6 ----

reaches('via', 'a subnet of one site, by its name');
reaches('suffix', 'with the suffix of the tailnet');
reaches('number', 'and by its address');
is(asks('other')->status, 502, 'with another suffix it is none');
is(asks('exit_via')->status, 502, 'nor without "accept_routes"');
like($t->read_log, qr/"192-168-77-9-via-7" is behind a subnet router and needs "accept_routes"/,
    'which is said');
is(asks('name_via?name=' . VIA)->status, 502, 'nor where a client says it');

# ---- for others than nginx ----

my $r = $t->ctl('exec', 'exitname', '--', 'curl', '-sS', '--max-time', 5,
    'http://' . OUTSIDE . ':8000/index.html');
is($r->{stdout}, "hello\n", 'tailnetctl exec goes there, too')
    or diag($r->{output});

$control->command('POST', '/nodes/box/routes', []);
ok(Test::Tailnet::Process::until_true(10, sub {
    asks('exitname_outside')->status != 200 }), 'until it is an exit no more');

$t->done_testing;
