# Two tailnets of two control servers in one nginx.  Addresses, users, tags and
# names of nodes are equal in both; with Headscale's way of control servers the
# suffix of names, too.  Rules, limits and kept connections are of one of them
# each.  control_two_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Test::Tailnet::App qw(start_app ask_many);

use constant PATIENCE => 30;

our $headscale;
my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);

# net(name): a control server, and the peers alice and ci, who have the same
# addresses in each tailnet, as they are the first.
sub net ($name) {
    my $control = $t->start_control(name => $name, headscale => $headscale,
        domain => $headscale ? 'mesh.test' : "$name.test", keys => [
        { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
        { Key => 'key-alice', User => 'alice@example.com' },
        { Key => 'key-ci', User => 'ops@example.com', Tags => ['tag:ci'] }]);
    my %peer = map { $_ => $t->start_tailscaled("$_-$name",
        control => $control, key => "key-$_", hostname => $_) }
        qw(alice ci);

    return { control => $control, peer => \%peer };
}

my %net = map { $_ => net($_) } qw(red blue);
$t->write_file('auth.key', "key-web\n", 0600);
my $nodes = join '', map { <<"EOC" } sort keys %net;
tailnet_node $_ {
    control_url  @{[$net{$_}{control}->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/$_;
    hostname     web;
    tags         tag:web;
}
EOC
$t->write_config(<<"EOC");
tailnet_engine binary=%%TAILNETD%%;
$nodes
events { }
http {
    upstream both {
        tailnet_server red/alice:8000;
        tailnet_server blue/alice:8000;
        keepalive 8;
    }
    server {
        tailnet_listen red:80;
        tailnet_listen blue:80;
        add_header X-Id \$tailnet_identity;
        root %%TESTDIR%%/html;
        location /any/ {
            tailnet_acl accept red/* blue/*;
        }
        location /user/ {
            tailnet_acl accept red/alice\@example.com;
        }
        location /tag/ {
            tailnet_acl accept blue/tag:ci;
        }
        location /node/ {
            tailnet_acl accept red/alice;
        }
        location /limit/ {
            tailnet_acl accept red/* blue/*;
            tailnet_limit_req rate=1r/m;
        }
    }
    server {
        listen 127.0.0.1:8080;
        location / {
            proxy_pass http://both;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
EOC
mkdir $t->testdir . '/html';
for my $place (qw(any user tag node limit)) {
    mkdir $t->testdir . "/html/$place";
    $t->write_file("html/$place/index.html", "hello\n");
}
$t->run;

# ---- what is equal ----

my %ip;
for my $name (sort keys %net) {
    my $web = $net{$name}{control}->wait_node('web', PATIENCE)
        or BAIL_OUT("nginx has not joined $name");
    $ip{$name} = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;
}
is($ip{red}, $ip{blue}, 'nginx has one address in both');
for my $who (qw(alice ci)) {
    is($net{red}{peer}{$who}->ip, $net{blue}{peer}{$who}->ip,
        "$who has one address in both");
}

# get(who, path): asked by one of a tailnet.
sub get ($who, $path) {
    my $name = $who =~ s/.*-//r;
    return $t->http_get($who, "http://$ip{$name}/$path/");
}

for my $who (qw(alice-red alice-blue ci-red ci-blue)) {
    my $name = $who =~ s/.*-//r;
    is($t->wait_http($who, "http://$ip{$name}/any/", PATIENCE)->status, 200,
        "$who is served");
}

# ---- rules ----

for my $case (
    ['user', 'alice-red' => 200, 'alice-blue' => 403, 'ci-red' => 403],
    ['tag', 'ci-blue' => 200, 'ci-red' => 403, 'alice-blue' => 403],
    ['node', 'alice-red' => 200, 'alice-blue' => 403],
) {
    my ($path, %want) = @$case;
    is(get($_, $path)->status, $want{$_}, "$path: $_") for sort keys %want;
}

# ---- limits ----

for my $who (qw(alice-red alice-blue ci-red ci-blue)) {
    my $id = get($who, 'any')->header('x-id');
    is(join(' ', map { get($who, 'limit')->status } 1, 2), '200 429',
        "$who has a limit of $id alone");
}

# ---- connections that are kept ----

start_app($t, "alice-$_", name => $_) for sort keys %net;
my %used;
ok(Test::Tailnet::Process::until_true(PATIENCE, sub {
    my @names = map { /^(\w+) / } ask_many($t, 'host',
        'http://127.0.0.1:8080/', 2);
    return "@{[sort @names]}" eq 'blue red';
}), 'both are asked') or diag($t->read_log);
for (ask_many($t, 'host', 'http://127.0.0.1:8080/', 12)) {
    my ($name, $conn) = split;
    $used{$name}{$conn}++;
}
is_deeply({ map { ($_ => [values $used{$_}->%*]) } keys %used },
    { red => [6], blue => [6] }, 'by a connection of its own each');

# ---- one of them is cut off ----

$net{red}{control}->remove('alice');
ok(Test::Tailnet::Process::until_true(PATIENCE, sub {
    $t->http_get('alice-red', "http://$ip{red}/any/", timeout => 1)->status
        == 0 }), 'alice of red is removed');
is(get('alice-blue', 'any')->status, 200, 'she of blue is not');

$t->done_testing;
