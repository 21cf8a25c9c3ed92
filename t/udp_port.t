# A WireGuard port that another program has: the log says so, and the node runs
# when it is free, by itself or at a reload.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $holder = <<'EOF';
use IO::Socket::IP;
my @s = map { IO::Socket::IP->new(Proto => 'udp', LocalHost => $_,
    LocalPort => $ARGV[0], V6Only => 1) or die "$_: $@" } @ARGV[1 .. $#ARGV];
$| = 1;
print "ready\n";
sleep 600;
EOF

sub occupy ($port, @at) {
    my $p = $t->spawn('host', [$^X, '-e', $holder, $port, @at], name => "occupy$port");

    $p->wait_stdout(qr/^ready$/m, 10) or die $p->stderr;
    return $p;
}

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');

$t->netmap('web.json', self => $web, peers => [$alice]);
$t->netmap('two.json', peers => [],
    self => $t->node('two', ns => 'host', tags => ['tag:web']));
my $both = occupy(41641, '0.0.0.0', '::');
my $four = occupy(41642, '0.0.0.0');
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap %%TESTDIR%%/web.json;
    private_key %%TESTDIR%%/web.key;
    port 41641;
}
tailnet_node two {
    netmap %%TESTDIR%%/two.json;
    private_key %%TESTDIR%%/two.key;
    port 41642;
}
events { }
http { server { listen 127.0.0.1:8080; return 204; } }
EOF
$t->run;

sub state_of ($name) { $t->node_status($name)->{state} // '' }

ok($t->wait_for_log(
    qr/\[error\].*node "web" cannot run: UDP port 41641 is in use by another program/, 10),
    'the log says that the port is in use');
unlike($t->read_log, qr/out of memory/, 'and nothing that is not so');
ok($t->wait_for_log(
    qr/\[warn\].*node "two": no IPv4 UDP socket on port 41642: another program has it/, 10),
    'one family is taken: that is said');
ok(Test::Tailnet::Process::until_true(10, sub { state_of('two') eq 'running' }),
    'it runs by the other');
is(state_of('web'), '', 'the first does not');

$both->stop('KILL', 5);
$t->reload;
ok(Test::Tailnet::Process::until_true(10, sub { state_of('web') eq 'running' }),
    'with the port free, a reload lets it run');
$four->stop('KILL', 5);

# ---- without a reload ----

$t->stop;
$both = occupy(41641, '0.0.0.0', '::');
my $mark = $t->log_mark;
$t->run;
ok($t->wait_for_log(qr/node "web" cannot run: UDP port 41641/, 10, from => $mark),
    'in use again');
$both->stop('KILL', 5);
ok(Test::Tailnet::Process::until_true(30, sub { state_of('web') eq 'running' }),
    'it is tried again by itself');

$t->stop;
$t->done_testing;
