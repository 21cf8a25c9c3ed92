# nginx behind a router with address translation: whom a tailscaled in its place
# would reach directly, it reaches directly; the others by relay.  All of them
# are served throughout, although the engine dies meanwhile.
#
# This router keeps nginx's port whoever is talked to (an "easy" one), that of
# tailscaled_nat_hard.t takes another one for each.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

our $kind //= 'easy';

my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

# stand_in is what nginx is compared with; carol has no router.
my @peers = qw(alice bob carol);
my %nat = (host => $kind, 'stand-in' => $kind, alice => 'easy', bob => 'hard');
$t->nat($_, $nat{$_}) for sort keys %nat;

# Two, as one cannot tell the kinds of routers apart.
my $control = $t->start_control(regions => 2, keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-alice', User => 'alice@example.com', Reusable => \1 }]);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    state        %%TESTDIR%%/state;
    tags         tag:web;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        tailnet_acl accept alice\@example.com;
        root %%TESTDIR%%/html;
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

$t->run;
my %peer = map { $_ => $t->start_tailscaled($_, control => $control,
    key => 'key-alice', wait => 0) } @peers, 'stand-in';
$_->wait_login for values %peer;
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;

# ---- what both say of their routers ----

Test::Tailnet::Process::until_true(15,
    sub { defined $t->node_status->{network}{mapping_varies} });
is(!!$t->node_status->{network}{mapping_varies}, $kind eq 'hard',
    "behind a router of the $kind kind, as is known")
    or diag(explain($t->node_status->{network}));
my $seen = "10.77.0." . $t->leg("host-router");
ok((grep { $_->{type} eq 'stun' && $_->{at} =~ /^\Q$seen\E:/ }
    ($t->node_status->{network}{endpoints} // [])->@*),
    'and its address is known')
    or diag(explain($t->node_status->{network}));

# ---- all are served, and reached as well as can be ----

my %loop;
for my $who (@peers) {
    is($t->wait_http($who, "http://$ip/", 10)->status, 200, "$who is served");
    $loop{$who} = $t->start_reqloop($who, url => "http://$ip:80/",
        parallel => 2, interval => 20, timeout => 15_000, size => 6);
}

# The stand-in's pings, all at once.
my %ping = map { $_ => $t->spawn('stand-in', [$peer{'stand-in'}->command('ping',
    '--until-direct', '--c', 8, '--timeout', '2s', $peer{$_}->ip)],
    stdin => '/dev/null') } @peers;
my %direct;
for my $who (@peers) {
    $ping{$who}->wait(40);
    my ($last) = reverse grep { /^pong / } split /\n/, $ping{$who}->stdout;
    $direct{$who} = ($last // '') =~ / via \d/;
    note("stand-in to $who: ", $last // 'nothing');
}
ok($direct{carol}, 'the stand-in reaches carol, who has no router, directly');
is(!!$direct{alice}, $kind eq 'easy',
    "alice, behind an easy one, directly from behind an easy one");
ok(!$direct{bob}, 'bob, behind a hard one, by relay');
for my $who (@peers) {
    my $want = $direct{$who} ? 'direct' : 'relay';
    ok($t->wait_path($who, $want, 20), "nginx reaches $who: $want")
        or diag($t->ctl('--json', 'status')->{stdout});
    like($peer{$who}->ping($ip, $direct{$who} ? (direct => 1) : ()),
        $direct{$who} ? qr/ via \d/ : qr/ via DERP/, "$who sees it so, too");
    like($t->ctl('ping', $who)->{output}, qr/^pong from .* via /,
        "tailnetctl ping $who");
}

my %before = map { $_ => $loop{$_}->stop } @peers;
is($before{$_}{failures}, 0,
    "of $_\'s $before{$_}{requests} requests none has failed")
    or diag(explain($before{$_}{reasons})) for @peers;

# ---- the engine dies ----

# Requests that wait as long as it takes, and others that measure: what a new
# connection lacks in the beginning, TCP asks for again after a second or three.
$loop{$_} = $t->start_reqloop($_, url => "http://$ip:80/", parallel => 2,
    interval => 10, timeout => 15_000, size => 6) for @peers;
my %meter = map { $_ => $t->start_reqloop($_, url => "http://$ip:80/",
    interval => 10, timeout => 300, size => 6) } @peers;
$t->wait_http('carol', "http://$ip/", 5);
$t->expect_alert(qr{engine \d+ was killed by signal 9});
ok($t->kill_engine, 'the engine is killed');
is($t->wait_http($_, "http://$ip/", 10)->status, 200,
    "$_ is served by the next one") for @peers;
ok($t->wait_path($_, 'direct', 15), "$_ directly, as before")
    for grep { $direct{$_} } @peers;
for my $who (@peers) {
    my ($s, $m) = map { $_->stop } $loop{$who}, $meter{$who};

    is($s->{failures}, 0, "$who\'s requests have not noticed")
        or diag(explain($s->{reasons}));
    cmp_ok($m->{max_gap_ms}, '<', 2000, "$who was back within 2 s");
    note("$who: back after $m->{max_gap_ms} ms, slowest $s->{max_ms} ms");
}

$t->done_testing;
