package Test::Tailnet::Daemon;

# The processes of tailnetd that an nginx of the test has started: what they
# say and what they hold.

use v5.36;

use JSON::PP ();

use Test::Tailnet::Process;

# node_status(name): the row of a node in "tailnetctl --json status" (default:
# the first one), or {} while there is none.
sub node_status ($self, @name) {
    my $said = $self->ctl('--json', 'status', @name)->{stdout};
    my $doc = eval { JSON::PP::decode_json($said) } // {};

    return ($doc->{nodes} // [])->[0] // {};
}

# peer_status(name): the row of a peer in that of the first node, or {}.
sub peer_status ($self, $name) {
    my ($peer) = grep { $_->{name} =~ /^\Q$name\E\./ }
        ($self->node_status->{peers} // [])->@*;
    return $peer // {};
}

# wait_path(name, path, seconds): true when nginx reaches that peer so (idle,
# relay, direct or doubt) in time.
sub wait_path ($self, $name, $want, $seconds) {
    return Test::Tailnet::Process::until_true($seconds,
        sub { ($self->peer_status($name)->{path} // '') eq $want });
}

# wait_control(node, state, seconds): until the node's control client is in that
# state; the one that it is in at last.
sub wait_control ($self, $node, $want, $seconds = 20) {
    my $state;

    Test::Tailnet::Process::until_true($seconds, sub {
        $state = $self->node_status($node)->{control}{state} // '';
        return $state eq $want;
    });
    return $state;
}

# holder(dir): the id of the holder behind the nginx whose pid file is in dir
# (default: the test's), or undef.
sub holder ($self, $dir = $self->{dir}) {
    my $title = qr{^\S+ --admin-fd .*--socket \Q$dir\E/nginx-tailnet/};
    my %pid = map { $_ => 1 }
        grep { Test::Tailnet::Process::running($_)
            && Test::Tailnet::Process::title($_) =~ $title }
        Test::Tailnet::Process::all_pids();

    # Its short-lived children have the same title, and what waits for a command
    # of "auth_key exec:", which is nobody's child.
    my @top = grep { !$pid{Test::Tailnet::Process::parent($_)}
        && Test::Tailnet::Process::slurp("/proc/$_/comm") !~ /^auth_key exec:/
    } keys %pid;
    return $top[0];
}

# engine(holder): the id of the engine, of that holder if one is given, or
# undef.
sub engine ($self, $holder = undef) {
    my @engines = grep {
        Test::Tailnet::Process::title($_) =~ /^tailnetd --engine/
            && (!$holder || Test::Tailnet::Process::parent($_) == $holder)
    } $self->own_pids;
    return $engines[0];
}

# kill_engine(): with SIGKILL; returns the id of the one that follows, or undef
# when none comes in time.
sub kill_engine ($self, $seconds = 10) {
    my $old = $self->engine // die 'there is no engine';
    my $new;

    kill 'KILL', $old;
    Test::Tailnet::Process::until_true($seconds, sub {
        $new = $self->engine;
        return $new && $new != $old;
    });
    return $new && $new != $old ? $new : undef;
}

# kill_holder(): with SIGKILL; returns its id when it is gone.
sub kill_holder ($self) {
    my $holder = $self->holder // die 'there is no holder';

    kill 'KILL', $holder;
    return $self->wait_gone(5, $holder) ? $holder : undef;
}

# requests(n): true when n requests have been answered from now on, told by the
# access log.
sub requests ($self, $n, $seconds = 15) {
    my $mark = $self->log_mark('access.log');

    return Test::Tailnet::Process::until_true($seconds, sub {
        ($self->log_since($mark, 'access.log') =~ tr/\n//) >= $n;
    });
}

# fds(pid): what its descriptors are, number => target.
sub fds ($self, $pid) {
    return { map { m{/(\d+)\z} ? ($1 => readlink($_) // 'gone') : () }
        glob "/proc/$pid/fd/*" };
}

# fd_kinds(pid): how many there are of each kind, for comparing: "socket",
# "pipe", "/dev/net/tun"...
sub fd_kinds ($self, $pid) {
    my %n;

    $n{s/:\[.*//r}++ for values $self->fds($pid)->%*;
    return \%n;
}

# private_dirty(pid): kilobytes of memory that are the process' own.
sub private_dirty ($self, $pid) {
    return Test::Tailnet::Process::slurp("/proc/$pid/smaps_rollup")
        =~ /^Private_Dirty:\s+(\d+) kB/m ? $1 : undef;
}

1;
