# Ten nodes of one nginx, each joined for itself: all answer Tailscale's own
# client, one engine serves them, and the tenth costs little memory.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP qw(decode_json);
use List::Util qw(min sum);
use Test::More;
use Test::Tailnet;

use constant {
    NODES => 10,
    PATIENCE => 30, # s; a sanitizer on a busy machine takes long
    TENTH => 2048, # kB of private memory at most; it is about 600
};

my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);

my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'],
        Reusable => \1 },
    { Key => 'key-alice', User => 'alice@example.com' }]);

$t->write_file('auth.key', "key-web\n", 0600);
my $url = $control->url;

# config(n): nginx with so many nodes.
sub config ($n) {
    my $nodes = join '', map { <<"EOC" } 1 .. $n;
tailnet_node n$_ {
    control_url  $url;
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/state$_;
    tags         tag:web;
    port         @{[41640 + $_]};
}
EOC
    my $servers = join '', map { <<"EOC" } 1 .. $n;
    server {
        tailnet_listen n$_:80;
        tailnet_acl accept alice\@example.com;
        add_header X-User \$tailnet_user;
        root %%TESTDIR%%/html/$_;
    }
EOC
    return <<"EOC";
tailnet_engine binary=%%TAILNETD%%;
worker_processes 1;
$nodes
events { }
http {
    default_type text/plain;
$servers
}
EOC
}

mkdir $t->testdir . '/html';
for (1 .. NODES) {
    mkdir $t->testdir . "/html/$_";
    $t->write_file("html/$_/index.html", "node $_\n");
}

sub nodes () {
    my $doc = eval { decode_json($t->ctl('--json', 'status')->{stdout}) } // {};
    return ($doc->{nodes} // [])->@*;
}

my %ip;

# joined(n): waits until so many have joined and know each other and alice.
sub joined ($n) {
    ok(Test::Tailnet::Process::until_true(PATIENCE, sub {
        my @up = grep { $_->{control}{state} eq 'running'
                && $_->{peers}->@* == $n } nodes();
        return @up == $n;
    }), "$n nodes have joined") or diag($t->ctl('status')->{output});
    $ip{$_->{name}} = $_->{self}{addresses}[0] =~ s{/.*}{}r for nodes();
}

# answer(k): alice is served by the kth.
sub answer ($k) {
    my $r = $t->wait_http('alice', "http://$ip{\"n$k\"}/", PATIENCE);

    is($r->status . ' ' . ($r->header('x-user') // ''), '200 alice@example.com',
        "n$k lets alice in") or diag($r->text);
    is($r->body, "node $k\n", 'and is itself');
}

# kilobytes(): private memory of tailnetd and of the worker, the least of two
# seconds: while something is being saved there is more.
sub kilobytes () {
    my $least;

    for (1 .. 10) {
        my $kb = sum map { $t->private_dirty($_) } $t->holder, $t->engine,
            $t->workers;
        $least = min($least // $kb, $kb);
        select undef, undef, undef, 0.2;
    }
    return $least;
}

$t->write_config(config(NODES - 1));
$t->run;
my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');
joined(NODES - 1);
answer($_) for 1 .. NODES - 1;
my %owner = reverse %ip;
is(scalar(keys %owner), NODES - 1, 'each has its own address');

my ($holder, $engine) = ($t->holder, $t->engine);
my $before = kilobytes();
$t->write_config(config(NODES));
$t->reload;
joined(NODES);
answer($_) for reverse 1 .. NODES;
is($t->holder, $holder, 'one tailnetd');
is($t->engine, $engine, 'with one engine');
my $after = kilobytes();
diag(sprintf 'private memory: nine nodes %d kB, the tenth %d kB', $before,
    $after - $before);
SKIP: {
    skip 'sanitizers keep memory', 1
        if Test::Tailnet::Process::slurp("/proc/$holder/maps")
            =~ /lib[alu]b?san/;
    cmp_ok($after - $before, '<=', TENTH, 'the tenth costs little memory');
}

# ---- one of them leaves ----

ok($t->ctl('logout', 'n5')->{ok}, 'one logs out');
is($t->http_get('alice', "http://$ip{n5}/", timeout => 1)->status, 0,
    'it does not answer');
answer($_) for 4, 6;

$t->done_testing;
