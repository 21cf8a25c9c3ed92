package Test::Tailnet::Net;

# Network namespaces of a test.  Each test has a switch (a bridge in a
# namespace of its own), and every host of it one leg there:
#
#       host              alice             bob
#   eth0 10.77.0.1    eth0 10.77.0.2    eth0 10.77.0.3    fd77::N beside it
#         |                 |                 |
#   ------+-----------------+-----------------+------ br0, namespace "switch"
#
# There are no default routes: what is not on the switch cannot be reached.
# The machine's own namespace takes no part.

use v5.36;

use POSIX ();

sub ns ($self, $name) { "$self->{prefix}-$name" }

# underlay(name): the IPv4 address of a host on the switch; made when first
# asked for.  underlay6(name): its IPv6 address.
sub underlay ($self, $name) { '10.77.0.' . $self->leg($name) }
sub underlay6 ($self, $name) { 'fd77::' . $self->leg($name) }

# leg(name): the number of a host, which is 1 for "host".
sub leg ($self, $name) {
    return $self->{legs}{$name} if $self->{legs}{$name};
    die "\"$name\" does not make a host name" if $name !~ /^[a-z0-9-]+\z/;
    $self->make_switch if !$self->{switch};

    my $n = $name eq 'host' ? 1 : ++$self->{last_leg};
    my ($ns, $switch) = ($self->ns($name), $self->ns('switch'));
    $self->make_ns($name);
    ip('-n', $switch, 'link', 'add', "leg$n", 'type', 'veth', 'peer', 'name',
        'eth0', 'netns', $ns);
    ip_batch($switch, "link set leg$n master br0 up");
    ip_batch($ns, 'link set lo up', "address add 10.77.0.$n/24 dev eth0",
        "address add fd77::$n/64 dev eth0 nodad", 'link set eth0 up');
    return $self->{legs}{$name} = $n;
}

sub make_switch ($self) {
    $self->make_ns('switch');
    ip_batch($self->ns('switch'),
        'link add br0 type bridge stp_state 0 mcast_snooping 0',
        'link set br0 up');
    $self->{switch} = 1;
    $self->{last_leg} = 1;
}

sub make_ns ($self, $name) {
    ip('netns', 'add', $self->ns($name));
    push $self->{namespaces}->@*, $self->ns($name);
}

# link_down(name), link_up(name): pull a host's cable and put it back.
sub link_down ($self, $name) { $self->set_link($name, 'down') }
sub link_up ($self, $name) { $self->set_link($name, 'up') }

sub set_link ($self, $name, $state) {
    my $leg = 'leg' . $self->leg($name);
    ip('-n', $self->ns('switch'), 'link', 'set', $leg, $state);
}

sub remove_namespaces ($self) {
    my @problems;

    for my $ns (reverse splice $self->{namespaces}->@*) {
        eval { ip('netns', 'del', $ns); 1 } or push @problems, $@;
    }
    return @problems;
}

# remove_stale(): namespaces of tests that were killed before they could clean
# up.  Their names carry the id of a process that is gone.
sub remove_stale () {
    for my $ns (map { m{([^/]+)\z} } glob '/run/netns/tt*-*') {
        next if $ns !~ /^tt(\d+)-/ || -e "/proc/$1";
        system 'ip', 'netns', 'del', $ns;
    }
}

# inodes(): of the network namespaces, to tell whose a process is in.
sub inodes ($self) {
    return map { (stat "/run/netns/$_")[1] // () } $self->{namespaces}->@*;
}

sub ip (@args) { output('ip', @args) }

sub ip_batch ($ns, @lines) {
    open my $fh, '|-', 'ip', '-n', $ns, '-batch', '-' or die "ip: $!";
    print $fh "$_\n" for @lines;
    close $fh or die "ip -n $ns: " . join('; ', @lines) . " failed\n";
}

# output(command): what a program prints, both streams; dies when it fails.
sub output (@cmd) {
    my $pid = open(my $fh, '-|') // die "fork: $!";

    if (!$pid) {
        open STDERR, '>&', \*STDOUT;
        no warnings 'exec';
        exec { $cmd[0] } @cmd;
        print "$cmd[0]: $!\n";
        POSIX::_exit(127);
    }
    my $out = do { local $/; <$fh> } // '';
    close $fh or die "@cmd: exit $?: $out\n";
    return $out;
}

1;
