# What conf-examples/ says works as it says: each file as it is, beside the
# netmap of the examples with keys of this test.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);
my $dir = $t->testdir;
my $examples = "$FindBin::Bin/../conf-examples";
my %tested;

mkdir "$dir/$_" for qw(tailnet run logs);

# The nodes of netmap.json, and one of another mesh with alice's address.
my %node = map { $_->{name} => $_ } (
    $t->nginx_node('web'),
    $t->node('laptop'),
    $t->node('phone'),
    $t->node('runner'),
    $t->node('gpu-box'),
    $t->node('ops', tags => ['tag:ops'],
        addr => ['100.64.0.2', 'fd7a:115c:a1e0::2']),
);
my %home = ($node{web}->%*, name => 'home', key_file => "$dir/web.key");
my $work = { $t->nginx_node('work', addr => $node{web}{addr})->%*,
    port => 41642, endpoints => [$t->underlay('host') . ':41642'] };

sub example ($name) {
    $tested{$name} = 1;
    return Test::Tailnet::Process::slurp("$examples/$name");
}

# Only keys and endpoints are this test's.
my $netmap = JSON::PP::decode_json(example('netmap.json'));
for my $peer ($netmap->{Peers}->@*) {
    my $node = $node{$peer->{StableID}};
    $peer->{Key} = $node->{pub};
    $peer->{Endpoints} = $node->{endpoints} if $peer->{Endpoints};
    is($peer->{Addresses}[0], "$node->{addr}[0]/32",
        "address of $node->{name}");
}
my $json = JSON::PP::encode_json($netmap);
$t->write_file("tailnet/$_", $json) for qw(netmap.json home.json);
rename $t->netmap('work.json', self => $work, peers => [$node{ops}]),
    "$dir/tailnet/work.json";
for (['web', 'web'], ['web', 'home'], ['work', 'work']) {
    my ($from, $to) = @$_;
    $t->write_file("tailnet/$to.key",
        Test::Tailnet::Process::slurp("$dir/$from.key"), 0600);
}

my %peer;

# A peer's session does not outlive the node's tailnetd.
sub peer ($name, $to = $node{web}) {
    if (!$peer{$name}) {
        $peer{$name} = $t->start_wgpeer($node{$name}, peers => [$to]);
        return;
    }
    $peer{$name}->remove_peer($to);
    $peer{$name}->add_peer($to);
}

sub asks ($who, $url, $status, $what, %o) {
    my $r = $t->http_get($who, $url, %o);
    is($r->status, $status, $what) or diag($r->text);
    return $r;
}

# with(file, code): an example's nginx while code runs.
sub with ($name, $code, %o) {
    my $text = example($name);
    my $engine = $text =~ /^tailnet_engine /m ? ''
        : 'tailnet_engine binary=%%TAILNETD%%;';

    subtest $name => sub {
        ok($text =~ s/^load_module .*;$/$engine/m, 'loads the module');
        $text =~ s/$_/$o{replace}{$_}/ for keys +($o{replace} // {})->%*;
        my $r = $t->test_config($text);
        ok($r->{ok}, 'nginx -t');
        unlike($r->{output}, qr/\[\w+\]/, 'without a warning');
        $t->write_config($text);
        $t->run;
        $code->();
        ok($t->stop, 'the end');
    };
}

$t->start_httpd('host', addr => '127.0.0.1', port => $_)
    for 3000, 3001, 5000, 8000;
my $url = 'http://100.64.0.1';

with('one-service-for-one-tag.conf', sub {
    peer($_) for qw(runner laptop);
    asks('runner', "$url/echo", 200, 'tag:ci reaches the registry');
    asks('laptop', "$url/echo", 403, 'alice does not');
});

with('services-by-subdomain.conf', sub {
    peer($_) for qw(runner laptop phone);
    my @git = (headers => ['Host: git.internal']);
    my @wiki = (headers => ['Host: wiki.internal']);

    asks('laptop', "$url/echo", 404, 'no name, no service');
    asks($_, "$url/echo", 200, "git for $_", @git) for qw(laptop phone runner);
    asks('laptop', "$url/echo", 200, 'wiki for alice', @wiki);
    asks('phone', "$url/echo", 403, 'wiki not for bob', @wiki);
    asks('laptop', "$url/echo", 413, 'wiki takes no big upload', @wiki,
        method => 'POST', data => 'x' x 70000);
    my @status = map { $t->http_get('laptop', "$url/echo", @wiki)->status }
        1 .. 15;
    ok((grep { $_ eq 429 } @status), 'wiki has its rate') or diag("@status");
    asks('laptop', "$url/echo", 200, 'which is not that of git', @git);
});

with('magicdns-upstream-with-lan-backup.conf', sub {
    my $lan = 'http://' . $t->underlay('host') . ':8080/who';

    Test::Tailnet::Net::ip('-n', $t->ns('host'), 'addr', 'add',
        '192.168.1.5/32', 'dev', 'lo');
    mkdir "$dir/$_" for qw(gpu backup);
    $t->write_file("$_/who", "$_\n") for qw(gpu backup);
    $t->start_httpd('host', addr => '192.168.1.5', port => 11434,
        root => "$dir/backup");
    my $gpu = $t->start_httpd('gpu-box', port => 11434, root => "$dir/gpu");
    peer('gpu-box');
    is(asks('host', $lan, 200, 'the LAN asks')->body, "gpu\n", 'gpu-box');
    $gpu->stop;
    is(asks('host', $lan, 200, 'gpu-box is away: the LAN asks')->body,
        "backup\n", 'the backup');
});

with('public-and-mesh-listener.conf', sub {
    my $public = 'http://' . $t->underlay('host');

    peer($_) for qw(laptop phone);
    asks('phone', "$public/echo", 200, 'the public');
    asks('phone', "$public/admin/echo", 403, 'not the admin pages');
    asks('phone', "$public/internal/echo", 403, 'not the internal ones');
    asks('phone', "$url/echo", 200, 'the mesh');
    asks('laptop', "$url/admin/echo", 200, 'admin pages for alice');
    asks('phone', "$url/admin/echo", 403, 'admin pages not for bob');
    asks('phone', "$url/internal/echo", 200, 'internal pages for the mesh');
    asks('host', 'http://192.168.1.5/admin/echo', 200,
        'admin pages at the office', curl => ['--interface', '192.168.1.5']);
});

with('several-nodes.conf', sub {
    peer('laptop', \%home);
    peer('ops', $work);
    asks('laptop', "$url/echo", 200, 'alice of home');
    asks('ops', "$url/echo", 200, 'ops of work, with the same address');
    asks('ops', "$url:8080/echo", 200, 'the other server of work');
    is($t->http_get('laptop', "$url:8080/echo", timeout => 1)->status, 0,
        'is not there for home');
});

with('status.conf', sub {
    peer($_) for qw(laptop phone);
    my $r = asks('laptop', "$url:9100/status", 200, 'status for alice');
    my $status = eval { JSON::PP::decode_json($r->body) };
    ok($status, 'JSON') or diag($r->body);
    asks('phone', "$url:9100/status", 403, 'not for bob');
    asks('host', 'http://127.0.0.1:9100/status', 200, 'and for this host');
    ok($t->wait_for_log(
        qr{^100\.64\.0\.3 \S*bob\S* "GET /status HTTP/1\.1" 403 "reject}m, 5,
        file => 'logs/mesh.log'), 'the log says who asked');
});

with('identity-headers.conf', sub {
    peer($_) for qw(laptop runner);
    my $r = asks('laptop', "$url/echo", 200, 'alice',
        headers => ['Tailscale-User-Login: root@example.com']);
    like($r->body, qr/^Tailscale-User-Login: alice\@example\.com\r$/m,
        'the application knows her');
    unlike($r->body, qr/root/, 'whatever she says');
    $r = asks('laptop', "$url/grafana/echo", 200, 'alice at grafana');
    like($r->body, qr/^X-WEBAUTH-USER: alice\@example\.com\r$/m, 'too');
    asks('runner', "$url/echo", 403, 'a machine is no member');
});

# A tailnet, whose users have no e-mail addresses.
my $control = $t->start_control(headscale => 1, keys => [
    map { { Key => "key-$_", User => $_ } } qw(ops alice bob)]);

$t->write_file('tailnet/web.authkey', "key-ops\n", 0600);
with('joined-tailnet.conf', sub {
    my $joined = $control->wait_node('web', 20);
    my $public = 'http://' . $t->underlay('host');

    ok($joined, 'the node joins') or return;
    my ($ip) = $joined->{Node}{Addresses}[0] =~ m{(.*)/};
    for my $who (qw(alice bob)) {
        $t->start_tailscaled("$who-pc", control => $control,
            key => "key-$who");
        $t->wait_http("$who-pc", "http://$ip/echo", 20);
        asks("$who-pc", "http://$ip/echo", 200, "$who in the tailnet");
    }
    asks('alice-pc', "http://$ip/admin/echo", 200, 'admin pages for alice');
    asks('bob-pc', "http://$ip/admin/echo", 403, 'not for bob');
    asks('alice-pc', "$public/echo", 200, 'the public');
    asks('alice-pc', "$public/admin/echo", 403, 'has no admin pages');
}, replace => {
    qr{https://headscale\.example\.com} => $control->url,
    qr{/etc/nginx/} => "$dir/",
    qr{/var/lib/} => "$dir/lib/",
});

# The service.
$t->write_file('tailnet/tailnetd.conf', example('tailnetd.conf'));
my $service = $t->spawn('host', [$t->binary('tailnetd'), '-c',
    "$dir/tailnet/tailnetd.conf", '--socket', "$dir/run/admin.sock", '--log',
    "$dir/tailnetd.log"], name => 'service');
ok(Test::Tailnet::Process::until_true(5, sub {
    -S "$dir/run/admin.sock" && $t->run_in('host', $t->binary('tailnetctl'),
        '--socket', "$dir/run/admin.sock", 'status')->{ok};
}), 'tailnetd.conf runs') or diag($service->stderr);

with('with-service.conf', sub {
    peer($_) for qw(laptop runner);
    asks('laptop', "$url/echo", 200, 'alice through the service');
    asks('runner', "$url/echo", 403, 'a machine is no member');
}, replace => { qr{/run/tailnetd} => "$dir/run" });

opendir my $files, $examples or die "$examples: $!";
is_deeply([sort grep { !/^\./ } readdir $files], [sort keys %tested],
    'all files of conf-examples were run');

$t->done_testing;
