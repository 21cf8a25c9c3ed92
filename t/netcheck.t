# tailnetctl netcheck: what a node's network is like, for people and as JSON;
# where UDP is blocked, latencies over HTTPS choose the relay.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP qw(decode_json);
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl control)]);

my $control = $t->start_control(ephemeral => 60, regions => 2,
    keys => [{ Key => 'ops', User => 'ops@example.com', Reusable => \1 }]);
my $url = $control->url;

$t->write_file('ops.key', "ops\n", 0600);
$t->write_file('web.json', '{"Node": {"Name": "alone.mesh.example.", '
    . '"Addresses": ["100.64.0.1/32"]}}');
$t->write_file('alone.key', ($t->genkey)[1] =~ s/^nodekey/privkey/r, 0600);
my $config = <<"EOF";
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url $url; ephemeral on;
    auth_key file:%%TESTDIR%%/ops.key;
}
tailnet_node alone {
    netmap %%TESTDIR%%/web.json;
    private_key %%TESTDIR%%/alone.key;
}
events { }
http { server { listen 127.0.0.1:8080; return 204; } }
EOF
$t->write_config($config);
$t->run;

# wait_network(test): the node's "network" once the test holds.
sub wait_network ($test) {
    my $network = {};

    Test::Tailnet::Process::until_true(20, sub {
        my $r = $t->ctl('netcheck', 'web', '--json');
        my $doc = eval { decode_json($r->{stdout}) } or return 0;
        $network = $doc->{nodes}[0]{network} // {};
        return defined $network->{udp} && $test->($network);
    });
    return $network;
}

my %regions = (1 => 1, 2 => 1);
sub measured ($n) { 2 == grep { $regions{$_->{region}} } $n->{latencies}->@* }

# ---- UDP passes ----

my $n = wait_network(sub ($n) {
    $n->{udp} && measured($n)
        && grep { $_->{region} == $n->{home} && $_->{state} eq 'up' }
            ($n->{relays} // [])->@*;
});
ok($n->{udp}, 'UDP passes');
ok($n->{home} == 1 || $n->{home} == 2, 'a home is chosen');
is_deeply([map { $_->{region} } sort { $a->{region} <=> $b->{region} }
    $n->{latencies}->@*], [1, 2], 'both regions are measured');
ok(!(grep { $_->{code} eq '' || $_->{name} eq '' } $n->{latencies}->@*),
    'they have names');

my $ip = $t->underlay('host');
my $r = $t->ctl('netcheck', 'web');
ok($r->{ok}, 'for people') or diag($r->{output});
like($r->{stdout}, qr/^web:\n  UDP: +yes\n  IPv4: +yes, \Q$ip\E:\d+\n  IPv6: +no/,
    'UDP and addresses');
like($r->{stdout}, qr/^  mapping varies: +no$/m, 'the NAT that is not there');
like($r->{stdout}, qr/^ +$n->{home} +\S+ +.* ms  home$/m, 'the home is marked');
like($r->{stdout}, qr/^  relay $n->{home}: +up$/m, 'its relay is up');

$r = $t->ctl('netcheck');
like($r->{stdout}, qr/^alone:\n  nothing is measured/m, 'a node without relays');
$r = $t->ctl('netcheck', 'nobody');
ok(!$r->{ok}, 'an unknown node');
like($r->{output}, qr/no node "nobody"/, 'it is said');
is(decode_json($t->ctl('netcheck', 'alone', '--json')->{stdout})->{nodes}[0]
    {network}, undef, 'JSON of it');

# ---- UDP is blocked ----

$t->stop;
$t->nft('host', <<"EOF");
table inet block {
    chain out {
        type filter hook output priority 0;
        meta l4proto udp drop;
    }
}
EOF
my $mark = $t->log_mark;
$t->write_config($config);
$t->run;
$n = wait_network(sub ($n) { !$n->{udp} && measured($n) });
is($n->{udp}, JSON::PP::false, 'UDP is blocked');
ok(measured($n), 'latencies are there all the same');
ok($n->{home} == 1 || $n->{home} == 2, 'and a home');
$r = $t->ctl('netcheck', 'web');
like($r->{stdout}, qr/^  UDP: +no$/m, 'that is said');
like($r->{stdout}, qr/^  IPv4: +not seen$/m, 'no address is seen');
like($r->{stdout}, qr/^  relay latency \(HTTPS\):$/m, 'and how it was measured');
like($r->{stdout}, qr/^ +$n->{home} +\S+ +.* ms  home$/m, 'home');
ok($t->wait_for_log(qr/node "web": no STUN server answers/, 5, from => $mark),
    'the log says what that means');

$t->stop;
$t->done_testing;
