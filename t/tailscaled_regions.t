# Two regions of relays: when nginx's home dies it moves to the other one and
# tells the control server, and a peer that has no way but relays follows; peers
# with a direct path do not notice.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

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
    key => 'key-alice', wait => 0) } qw(alice carol);
$_->wait_login for values %peer;
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;

# home(): nginx's, as it says and as the control server says, where both agree.
sub home () {
    my $said = $t->node_status->{network}{home} // 0;
    my $known = $control->node('web')->{Node}{HomeDERP} // 0;
    return $said == $known ? $said : 0;
}

sub wait_home ($seconds, @want) {
    my $home;
    Test::Tailnet::Process::until_true($seconds, sub {
        $home = home();
        return grep { $_ == $home } @want;
    });
    return $home;
}

is($t->wait_http($_, "http://$ip/", 5)->status, 200, "$_ is served")
    for qw(alice carol);
ok($t->wait_path('carol', 'direct', 10), 'carol directly');
$peer{alice}->block_udp;
ok($t->wait_path('alice', 'relay', 15),
    'alice, whose UDP is blocked, by relay');
my $home = wait_home(10, 1, 2);
ok($home, 'nginx has a home') or diag(explain($t->node_status->{network}));

my $others = $t->start_reqloop('carol', url => "http://$ip:80/",
    interval => 10, timeout => 10_000, size => 6);
my $loop = $t->start_reqloop('alice', url => "http://$ip:80/", interval => 100,
    timeout => 2000, size => 6);
for my $dies ($home, 3 - $home) {
    my $begin = time;

    $control->relay(0, $dies);
    is(wait_home(60, 3 - $dies), 3 - $dies,
        "region $dies dies: region " . (3 - $dies) . ' is home')
        or diag(explain($t->node_status->{network}));
    note(sprintf 'after %.1f s', time - $begin);
    is($t->wait_http('alice', "http://$ip/", 60)->status, 200,
        'alice is served by it');
    note(sprintf 'after %.1f s', time - $begin);
    like($peer{alice}->ping($ip), qr/ via DERP/, 'tailscale ping');
    like($t->ctl('ping', 'alice')->{output}, qr/^pong /, 'tailnetctl ping');
    $control->relay(1, $dies);
}
my $s = $others->stop;
is($s->{failures}, 0, "of carol's $s->{requests} requests none has failed")
    or diag(explain($s->{reasons}));
cmp_ok($s->{max_gap_ms}, '<', 2000, 'and none waited');
$s = $loop->stop;
note("alice: gap $s->{max_gap_ms} ms");

$t->done_testing;
