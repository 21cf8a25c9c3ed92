# peers.pl [--seconds N] [PEERS...]: what a large tailnet costs, and what one
# message about one of its peers.
#
# A control server with a crowd of peers that exist only there (default: 0,
# 1,000, 10,000 and 100,000), a tailnetd that joins, nginx with one worker, and
# one real peer that asks for 1 KB over the mesh on 4 connections.

use v5.36;

use FindBin;
use lib $FindBin::Bin, "$FindBin::Bin/../t/lib";

use Bench;
use Test::Tailnet;
use Time::HiRes qw(time sleep);

use constant {
    CHANGES => 15,     # messages of each kind
    LOAD_ROUNDS => 3,
    LOAD_EVERY => 100, # milliseconds, while requests run
    PATIENCE => 120,
    KINDS => [qw(online endpoints changed same replaced)],
};

my @sizes = grep { /^\d{2,}\z|^0\z/ } @ARGV;
my (undef, $seconds) = options(grep { !/^\d{2,}\z|^0\z/ } @ARGV);
@sizes = (0, 1000, 10_000, 100_000) if !@sizes;

$ENV{TAILNET_NO_SKIP} = 1;
my $t = Test::Tailnet->new(also => ['control']);
my $alice = $t->node('alice', addr => ['100.64.9.77']);
html($t);
$t->write_file('auth.key', "secret-web\n", 0600);

# Nanoseconds of CPU that a process has used.
sub cpu_ns ($pid) {
    return (split / /, Test::Tailnet::Process::slurp("/proc/$pid/schedstat"))[0];
}

sub snapshot_size ($pid) {
    my ($fd) = grep { (readlink($_) // '') =~ /memfd:tailnet-snapshot/ }
        glob "/proc/$pid/fd/*";
    return $fd ? -s $fd : 0;
}

sub join_tailnet ($n) {
    my $control = $t->start_control(name => "control$n", crowd => $n, keys => [
        { Key => 'secret-web', Tags => ['tag:web'], Reusable => \1 }]);

    $t->write_config(<<"EOF");
worker_processes 1;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    hostname     web$n;
    state        %%TESTDIR%%/state$n;
    port         41641;
}
events { worker_connections 1024; }
http {
@{[HTTP]}
    server {
        tailnet_listen 80;
        root %%TESTDIR%%/html;
        tailnet_acl accept *;
    }
}
EOF
    my $mark = $t->log_mark;
    my $begin = time;
    $t->run;
    $t->wait_for_log(qr/netmap applied: $n peers?/, PATIENCE, from => $mark)
        or die 'no netmap: ' . $t->log_since($mark);
    return ($control, time - $begin);
}

# A real peer, so that there is somebody to ask.
sub real_peer ($control, $name) {
    my $node = $control->wait_node($name, PATIENCE) or die 'not connected';
    my $self = $node->{Node}{Addresses}[0] =~ s{/.*}{}r;
    my $addr = $alice->{addr}[0];

    $control->message($name, { PeersChanged => [{ ID => 77,
        StableID => 'n77', Name => 'alice.tailnet.test.', User => 4711,
        Key => $alice->{pub}, Addresses => ["$addr/32"],
        AllowedIPs => ["$addr/32"], Endpoints => $alice->{endpoints},
        IsWireGuardOnly => \1, MachineAuthorized => \1 }],
        UserProfiles => [{ ID => 4711, LoginName => 'alice@example.com' }] });
    my $wg = $t->start_wgpeer($alice, peers => [{ name => $name,
        pub => $node->{Node}{Key}, addr => [$self], routes => [],
        endpoints => [$t->underlay('host') . ':41641'] }]);
    $t->wait_http('alice', "http://$self/1k", PATIENCE)->status == 200
        or die 'no answer over the mesh';
    return ($wg, { who => 'alice', url => "http://$self", server => {} });
}

# Seconds between two, so that none are put together.
sub every ($n) { 0.15 + $n / 100_000 }

# Milliseconds of CPU that one message of a kind costs each process, beyond
# what they use when there is none.
sub cost ($control, $n, $pid, $kind, @idle) {
    my @busy = used($pid, sub {
        $control->changes($kind, CHANGES, every($n) * 1000);
        sleep CHANGES * every($n);
        $control->changed(PATIENCE);
    });

    return map { ($busy[$_] - $idle[$_]) / CHANGES / 1e6 } 0 .. $#idle;
}

sub used ($pid, $code) {
    my @before = map { cpu_ns($_) } @$pid;
    $code->();
    return map { cpu_ns($pid->[$_]) - $before[$_] } 0 .. $#$pid;
}

sub number ($n, $format = '%.3g') {
    return $n >= 100 ? sprintf '%.0f', $n : sprintf $format, $n;
}

# Medians of several rounds.
sub loads ($rounds) {
    return ((map { my $of = $_; number(median(map { $_->{$of} } @$rounds)) }
        qw(rps p50 p99)), (grep { $_->{errors} } @$rounds) ? 'ERRORS' : '');
}

my (@size, @cost, @latency, @base);
for my $n (@sizes) {
    my ($control, $first) = join_tailnet($n);
    my @pid = ($t->engine, $t->holder, $t->workers);
    sleep 3 + $n / 20_000; # the netmap is saved
    my @kb = map { dirty_kb($_) } @pid;
    my $bytes = snapshot_size($t->holder);

    @base = @kb if !@base;
    push @size, [$n, number($first), number($kb[0] / 1024),
        $n ? number(($kb[0] - $base[0]) * 1024 / $n) : '–', number($kb[1] / 1024),
        number($kb[2] / 1024), $n ? number($bytes / $n) : '–'];
    my @idle = used(\@pid, sub { sleep CHANGES * every($n) });
    for my $kind ($n ? KINDS->@* : ()) {
        push @cost, [$n, $kind,
            map { number($_) } cost($control, $n, \@pid, $kind, @idle)];
    }
    my ($wg, $way) = real_peer($control, "web$n");
    my (@quiet, @busy);
    for (1 .. LOAD_ROUNDS) {
        push @quiet, load_on($t, $way, '/1k', '-c4');
        $control->changes('online', int($seconds * 1000 / LOAD_EVERY),
            LOAD_EVERY) if $n;
        push @busy, load_on($t, $way, '/1k', '-c4');
        $control->changed(PATIENCE);
    }
    push @latency, [$n, map { loads($_) } \@quiet, \@busy];
    $wg->stop;
    $t->stop;
    $control->stop;
}
columns(['peers', 'first netmap, s', 'engine MB', 'bytes a peer', 'holder MB',
    'worker MB', 'snapshot bytes a peer'], @size);
columns(['peers', 'message', 'engine ms', 'holder ms', 'worker ms'], @cost);
columns(['peers', 'requests/s', 'p50 us', 'p99 us', 'errors', 'with messages', 'p50 us',
    'p99 us', 'errors'], @latency);
