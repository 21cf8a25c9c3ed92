# The control server has the node ping its peers, and is told what came of it.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(also => [qw(control tailscaled tailscale)]);

my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] },
    { Key => 'key-alice', User => 'alice@example.com' }]);

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
my $alice = $t->start_tailscaled('alice', control => $control,
    key => 'key-alice');
my $web = $control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');
my $ip = $web->{Node}{Addresses}[0] =~ s{/.*}{}r;
my $to = $alice->ip;
$t->wait_http('alice', "http://$ip/", 10);
ok(Test::Tailnet::Process::until_true(20, sub {
    ($control->ping('web', $to, 'disco')->{disco}{Endpoint} // '') ne '';
}), 'there is a direct path');

for my $noise (0, 1) {
    my $by = $noise ? 'by the channel' : 'outside the channel';
    my $got = $control->ping('web', $to, 'disco,TSMP,ICMP', noise => $noise);

    is_deeply([sort keys %$got], [qw(ICMP TSMP disco)], "$by: each type");
    for my $r (values %$got) {
        my $type = $r->{Type};
        is($r->{Err}, undef, "$type: no error");
        is_deeply([$r->@{qw(IP NodeIP NodeName)}], [$to, $to, 'alice'],
            "$type: whom");
        my $s = $r->{LatencySeconds} // 0;
        ok($s > 0 && $s < 10, "$type: how fast") or diag($s);
    }
    like($got->{disco}{Endpoint},
        qr/^(?:10\.77\.0\.\d+|\[fd77::[0-9a-f]+\]):41641$/,
        'disco: from where');
    ok($got->{TSMP}{PeerAPIPort}, 'TSMP: the port of its PeerAPI');
}

my $got = $control->ping('web', $alice->ip6, 'TSMP')->{TSMP};
is($got->{Err}, undef, 'by IPv6');
$got = $control->ping('web', '100.64.99.99', 'disco')->{disco};
like($got->{Err}, qr/no peer has this address/, 'nobody: said so');
is($got->{LatencySeconds}, undef, 'and no time');
$got = $control->ping('web', $ip, 'TSMP')->{TSMP};
ok($got->{IsLocalIP}, 'itself: said so') or diag(explain($got));
ok($got->{Err}, 'with words');
like($control->ping('web', $to, 'peerapi')->{peerapi}{Err}, qr/PeerAPI/,
    'a type that it cannot do: said so');
is($control->command('POST', '/nodes/web/ping'), '', 'HEAD still is');

# By relay alone.
$alice->block_udp;
ok(Test::Tailnet::Process::until_true(20, sub {
    $got = $control->ping('web', $to, 'disco')->{disco};
    return ($got->{DERPRegionID} // 0) == 1;
}), 'where UDP is blocked: by the relay') or diag(explain($got));
ok($got->{DERPRegionCode} && !$got->{Endpoint} && !$got->{Err},
    'and the region is said') or diag(explain($got));
$alice->unblock_udp;

$t->done_testing;
