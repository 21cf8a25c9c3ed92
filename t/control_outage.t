# The control server falls silent, disappears and comes back: nginx goes on
# serving with what it knows, the connection returns, and two hundred of those
# leave nothing behind.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

use constant {
    PEERS => 300,
    # Five minutes are two and a half of the watchdog's 120 s.
    WATCHDOG => 1200, # ms
    BACKOFF => 10, # which the short streams below count for
    OUTAGE => 3,      # s
    WARM_UP => 30,
    RECONNECTS => 200,
    # kB of private memory: 10 a reconnect, where one netmap takes 500.  What
    # the allocator keeps differs by more than one.
    TOLERANCE => 2000,
};

my $t = Test::Tailnet->new(also => ['control', 'reqloop']);

my $control = $t->start_control(crowd => PEERS, keepalive => 300, keys => [
    { Key => 'secret-web', Tags => ['tag:web'] }]);
my $alice = $t->node('alice', addr => ['100.64.9.77']);

$t->write_file('auth.key', "secret-web\n", 0600);
$t->write_config(<<"EOF");
worker_processes 1;
tailnet_engine binary=%%TAILNETD%%
               timing=watchdog=@{[WATCHDOG]},backoff=@{[BACKOFF]};
tailnet_node web {
    control_url  @{[$control->url]};
    auth_key     file:%%TESTDIR%%/auth.key;
    hostname     webserver;
    state        %%TESTDIR%%/state;
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

sub control () { $t->node_status->{control} // {} }

# wait_streams(n): running, with a map stream after number n.
sub wait_streams ($n) {
    return Test::Tailnet::Process::until_true(20, sub {
        my $c = control();
        return ($c->{state} // '') eq 'running' && $c->{streams} > $n;
    });
}

# ---- alice, who asks all the time ----

$t->run;
my $known = $control->wait_node('webserver', 10) or BAIL_OUT('not joined');
my $self = $known->{Node}{Addresses}[0] =~ s{/.*}{}r;

# Every stream begins with what the server knows, and that is not she.
sub introduce () {
    $control->message('webserver', { PeersChanged => [{ ID => 77,
        StableID => 'n77', Name => 'alice.tailnet.test.', User => 4711,
        Key => $alice->{pub}, Addresses => ['100.64.9.77/32'],
        AllowedIPs => ['100.64.9.77/32'], Endpoints => $alice->{endpoints},
        IsWireGuardOnly => \1, MachineAuthorized => \1 }],
        UserProfiles => [{ ID => 4711, LoginName => 'alice@example.com' }] });
}
introduce();
$t->start_wgpeer($alice, peers => [{ name => 'web', pub => $known->{Node}{Key},
    addr => [$self], routes => [],
    endpoints => [$t->underlay('host') . ':41641'] }]);
is($t->wait_http('alice', "http://$self/", 10)->status, 200, 'nginx serves');

# ---- silence ----

my $streams = control()->{streams};
my $mark = $t->log_mark;
my $loop = $t->start_reqloop('alice', url => "http://$self:80/", interval => 20,
    timeout => 10_000);
$control->silence(1);
ok($t->wait_for_log(qr/control server \S+: nothing came for 1 s; it tries again/,
    20, from => $mark), 'the server is silent: the watchdog says so');
sleep OUTAGE; # the time is what is tested
isnt(control()->{state}, 'running', 'the connection is gone');
my $sum = $loop->stop;
is($sum->{failures}, 0, 'nginx serves all the time')
    or diag(explain($sum->{reasons}));
cmp_ok($sum->{requests}, '>', 20, "$sum->{requests} requests");
$control->silence(0);
ok(wait_streams($streams), 'the connection comes back');

# ---- nobody is there ----

introduce();
is($t->wait_http('alice', "http://$self/", 10)->status, 200, 'alice is known');
$streams = control()->{streams};
$loop = $t->start_reqloop('alice', url => "http://$self:80/", interval => 20,
    timeout => 10_000);
$control->fault(Path => '/', Close => \1);
$control->command('POST', '/kick');
is($t->wait_control('web', 'waiting'), 'waiting', 'the server is gone');
sleep OUTAGE;
isnt(control()->{state}, 'running', 'and stays so');
$sum = $loop->stop;
is($sum->{failures}, 0, 'nginx serves all the time')
    or diag(explain($sum->{reasons}));
$control->fault;
ok(wait_streams($streams), 'the connection comes back');

# ---- two hundred times ----

my %pid = (engine => $t->engine, holder => $t->holder,
    worker => ($t->workers)[0]);

sub census () {
    return {
        fds => { map { $_ => $t->fd_kinds($pid{$_}) } keys %pid },
        kb => { map { $_ => $t->private_dirty($pid{$_}) } keys %pid },
    };
}

sub settled () {
    my ($before, $now) = (census());

    Test::Tailnet::Process::until_true(5, sub {
        ($before, $now) = ($now // $before, undef);
        select undef, undef, undef, 0.3;
        $now = census();
        return eq_hash($now->{fds}, $before->{fds});
    });
    return $now;
}

# A word to the server takes no effect while nobody is connected, so there are
# more of them than reconnects.
sub reconnect ($n) {
    my $begin = control()->{streams};
    my $streams = $begin;

    for (my $i = 1; $streams < $begin + $n && $i < 10 * $n; $i++) {
        $control->command('POST',
            '/nodes/webserver/' . ($i % 4 ? 'end' : 'kick'));
        select undef, undef, undef, 0.02;
        $streams = control()->{streams} if $i % 10 == 0;
    }
    cmp_ok($streams - $begin, '>=', $n, "$n reconnects");
    ok(wait_streams($begin + $n - 1), 'and connected at the end');
}

reconnect(WARM_UP);
my $before = settled();
reconnect(RECONNECTS);
my $after = settled();
is_deeply($after->{fds}, $before->{fds}, 'descriptors are the same');
SKIP: {
    skip 'sanitizers keep memory', 3
        if Test::Tailnet::Process::slurp("/proc/$pid{holder}/maps")
            =~ /lib[alu]b?san/;
    for my $name (sort keys %pid) {
        my ($old, $new) = ($before->{kb}{$name}, $after->{kb}{$name});
        cmp_ok($new - $old, '<=', TOLERANCE, "memory of the $name");
        note("$name: $old kB, then $new kB");
    }
}
introduce();
is($t->wait_http('alice', "http://$self/", 10)->status, 200, 'nginx serves');
is($t->engine, $pid{engine}, 'by the same engine');

$t->done_testing;
