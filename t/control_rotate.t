# A node that gets a new key is reachable again at once: neither its handshakes
# nor its peers' answers wait for a retry.
# control_rotate_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

use constant ROTATIONS => 6;

our $headscale;
my $t = Test::Tailnet->new(
    also => [qw(control tailscaled tailscale reqloop)]);

my $control = $t->start_control(headscale => $headscale, keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'],
        Reusable => \1 },
    { Key => 'key-alice', User => 'alice@example.com', Reusable => \1 }]);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOC");
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
        location / { tailnet_acl accept *; return 200 "hello\\n"; }
    }
}
EOC
$t->run;
my %peer = map { $_ => $t->start_tailscaled($_, control => $control,
    key => 'key-alice', wait => 0) } qw(alice carol);
$_->wait_login for values %peer;
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;
my $key = $web->{Node}{Key};
for my $who (sort keys %peer) {
    is($t->wait_http($who, "http://$ip/", 10)->status, 200, "$who is served");
    like($peer{$who}->ping($ip, direct => 1), qr/^pong /, 'directly');
}
my %loop = map { $_ => $t->start_reqloop($_, url => "http://$ip:80/",
    parallel => 2, interval => 10, timeout => 15000, size => 6) }
    sort keys %peer;

for my $n (1 .. ROTATIONS) {
    ok($t->ctl('rotate', 'web')->{ok}, "a new key, $n");
    my $known = $control->wait_node('web', 10,
        sub ($r) { $r->{Node}{Key} ne $key && $r->{Connected} });
    ok($known, 'the server knows it') or last;
    $key = $known->{Node}{Key};
    # No more than that passes through both tunnels: two answers came since.
    for my $who (sort keys %peer) {
        is($t->http_get($who, "http://$ip/", timeout => 15)->status, 200,
            "$who is served");
    }
}
for my $who (sort keys %loop) {
    my $s = $loop{$who}->stop;
    is($s->{failures}, 0, "of $who\'s $s->{requests} requests none has failed")
        or diag(explain($s->{reasons}));
    note("$who: gap $s->{max_gap_ms} ms, longest $s->{max_ms} ms");
    cmp_ok($s->{max_gap_ms}, '<', 4000, 'nor waited for a retry');
}

$t->done_testing;
