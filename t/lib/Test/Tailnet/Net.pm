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
#
# A host behind a NAT (see nat) is not on the switch, its router is:
#
#   host ------- in0 host-router eth0 10.77.0.N --- switch
#   192.168.N.2      192.168.N.1

use v5.36;

use POSIX ();

sub ns ($self, $name) { "$self->{prefix}-$name" }

# underlay(name): the IPv4 address of a host on the switch; made when first
# asked for.  underlay6(name): its IPv6 address.
sub underlay ($self, $name) {
    return $self->{address}{$name} // '10.77.0.' . $self->leg($name);
}

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

my %masquerade = (
    easy => 'masquerade',
    hard => 'masquerade random,fully-random',
);

# nat(name, kind): a host that nobody has asked for yet goes behind a router.
# easy: its port is the same outside, whoever it talks to; hard: another for
# each.  Nobody gets in but who has been talked to.  IPv4 only.
sub nat ($self, $name, $kind) {
    my $router = "$name-router";
    my $n = $self->leg($router);
    my ($ns, $outer) = ($self->ns($name), $self->ns($router));

    die "\"$name\" is on the switch already" if $self->{legs}{$name};
    $self->make_ns($name);
    ip('-n', $outer, 'link', 'add', 'in0', 'type', 'veth', 'peer', 'name',
        'eth0', 'netns', $ns);
    ip_batch($outer, "address add 192.168.$n.1/24 dev in0",
        'link set in0 up');
    ip_batch($ns, 'link set lo up', "address add 192.168.$n.2/24 dev eth0",
        'link set eth0 up', "route add default via 192.168.$n.1");
    $self->{legs}{$name} = $n;
    $self->{address}{$name} = "192.168.$n.2";
    $self->{gateway}{$name} = "192.168.$n.1";
    # What nobody has asked for must not become a connection of the router's
    # own: the port would be taken, and what leaves by it next gets another.
    $self->nft($router, <<"EOF");
table ip nat {
    chain out {
        type nat hook postrouting priority 100;
        oifname "eth0" $masquerade{$kind};
    }
}
table ip filter {
    chain strangers {
        type filter hook prerouting priority -150;
        iifname "eth0" ct state new drop;
    }
}
EOF
    output('ip', 'netns', 'exec', $outer, 'sh', '-c',
        'echo 1 >/proc/sys/net/ipv4/ip_forward');
}

# nft(name, rules): of the packet filter of a host.
sub nft ($self, $name, $rules) {
    my $file = $self->write_file("$name.nft", $rules);

    $self->leg($name);
    output('ip', 'netns', 'exec', $self->ns($name), 'nft', '-f', $file);
}

# default_route(name, gateway): for programs that take a host without one for
# cut off; where there is a router it is that.
sub default_route ($self, $name, $gateway) {
    $self->leg($name);
    $gateway = $self->{gateway}{$name} //= $gateway;
    ip_batch($self->ns($name), "route replace default via $gateway");
}

# second_address(name): one more for a host on the switch.
sub second_address ($self, $name) {
    my $address = '10.77.0.' . (200 + ++$self->{second});

    $self->leg($name);
    ip_batch($self->ns($name), "address add $address/24 dev eth0");
    return $address;
}

# readdress(name): a host on the switch gets other addresses, and the old ones
# are gone, as if it was carried into another network.
sub readdress ($self, $name) {
    my $n = $self->leg($name);
    my $old = $self->underlay($name) =~ s/.*\.//r;
    my $new = $old == $n ? $n + 100 : $n;
    my $gateway = $self->{gateway}{$name};

    $self->{address}{$name} = "10.77.0.$new";
    ip_batch($self->ns($name), "address del 10.77.0.$old/24 dev eth0",
        "address del fd77::$old/64 dev eth0",
        "address add 10.77.0.$new/24 dev eth0",
        "address add fd77::$new/64 dev eth0 nodad",
        $gateway ? "route replace default via $gateway" : ());
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
