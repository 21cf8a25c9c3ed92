package Test::Tailnet::Tailscaled;

# Tailscale's own daemon as a peer: tailscaled with a TUN device, on a host of
# the test, in the tailnet of a control server.

use v5.36;

use Test::Tailnet::Net;
use Test::Tailnet::Process;

# tailscaled answers SIGTERM when it has said good-bye to everybody.
use constant GRACE => 10;

# start_tailscaled(name, options): tailscaled on the host of that name, logged
# in at a control server.  Options: control (a server of start_control), key (an
# auth key), hostname (name), port (41641), up (more arguments of "tailscale
# up"), wait => 0: back before it is logged in, see wait_login.
# Returns a Test::Tailnet::Tailscaled::Peer.
sub start_tailscaled ($self, $name, %o) {
    my $state = "$self->{dir}/$name.tailscaled";
    my $peer = bless {
        t => $self,
        name => $name,
        state => $state,
        socket => "$state/socket",
        options => \%o,
    }, 'Test::Tailnet::Tailscaled::Peer';

    # Without a default route it takes the network for down.
    $self->default_route($name, $o{control}{ip});
    mkdir $state, 0700 or die "$state: $!";
    $peer->start->login;
    $peer->wait_login if $o{wait} // 1;
    return $peer;
}

package Test::Tailnet::Tailscaled::Peer;

use File::Path ();
use JSON::PP ();

# start(): again after stop(); it knows who it is.  forget(): while it is
# stopped; then it has to log in again, as a new node.
sub start ($self) {
    my $state = $self->{state};
    my $port = $self->{options}{port} // 41641;

    unlink $self->{socket};
    $self->{proc} = $self->{t}->spawn($self->{name},
        [$self->{t}->binary('tailscaled'), '--tun=tailscale0',
            "--statedir=$state", "--socket=$self->{socket}", "--port=$port",
            '--no-logs-no-support'],
        name => "$self->{name}.tailscaled",
        env => {
            TS_DEBUG_FIREWALL_MODE => 'nftables',
            TS_LOGS_DIR => $state,
            HOME => $state,
            XDG_CACHE_HOME => $state,
        });
    Test::Tailnet::Process::until_true(10,
        sub { -S $self->{socket} || !$self->alive });
    -S $self->{socket}
        or die "tailscaled $self->{name}: not ready: " . $self->log;
    return $self;
}

sub forget ($self) {
    File::Path::remove_tree($self->{state}, { keep_root => 1 });
    delete $self->@{qw(ip ip6)};
}

# login(): begins to, see wait_login().
sub login ($self) {
    my $o = $self->{options};

    $self->{up} = $self->{t}->spawn($self->{name}, [$self->command('up',
        '--login-server', $o->{control}->url, '--auth-key', $o->{key},
        '--hostname', $o->{hostname} // $self->{name}, '--accept-dns=false',
        '--timeout', '20s', ($o->{up} // [])->@*)], name => "$self->{name}.up",
        stdin => '/dev/null');
    return $self;
}

# wait_login(): until "tailscale up" is through.
sub wait_login ($self) {
    my $up = delete $self->{up} or return $self;
    my $exit = $up->wait(25) // $up->stop('KILL');

    $exit == 0 or die "tailscale up $self->{name}: exit $exit: " . $up->stdout
        . $up->stderr;
    return $self;
}

sub name ($self) { $self->{name} }
sub pid ($self) { $self->{proc}->pid }
sub alive ($self) { $self->{proc}->alive }

# log(): what it has said so far.
sub log ($self) { $self->{proc}->stderr }

# command(args): the words of a "tailscale" command.
sub command ($self, @args) {
    return ($self->{t}->binary('tailscale'), "--socket=$self->{socket}", @args);
}

# tailscale(args): run one; as run_in.
sub tailscale ($self, @args) {
    return $self->{t}->run_in($self->{name}, $self->command(@args));
}

# ip(): its IPv4 address in the tailnet.  ip6(): the other one.
sub ip ($self) { $self->{ip} //= $self->address(4) }
sub ip6 ($self) { $self->{ip6} //= $self->address(6) }

sub address ($self, $family) {
    my $r = $self->tailscale('ip', "-$family");

    $r->{ok} or die "tailscale ip $self->{name}: $r->{output}";
    return $r->{stdout} =~ s/\s+\z//r;
}

# local_api(path): the document of a GET request to the daemon, or undef.
sub local_api ($self, $path) {
    my $r = $self->{t}->run_command(['curl', '-sS', '--fail-with-body',
        '--max-time', 10, '--unix-socket', $self->{socket},
        "http://local-tailscaled.sock/localapi/v0/$path"]);

    return $r->{ok} ? JSON::PP::decode_json($r->{stdout}) : undef;
}

sub status ($self) { $self->local_api('status') // {} }
sub whois ($self, $address) { $self->local_api("whois?addr=$address") }

# peer(name): the row of a peer in its status, or {}.
sub peer ($self, $name) {
    my $peers = $self->status->{Peer} // {};
    my @found = grep { $_->{HostName} eq $name } values %$peers;

    return $found[0] // {};
}

# ping(address, options): one kind of ping; returns the line that tells of the
# answer, or "".  Options: type (disco, TSMP, ICMP, peerapi), count, direct => 1:
# on until an answer came by a direct path, timeout (seconds for each).
sub ping ($self, $address, %o) {
    my $type = lc($o{type} // 'disco');
    my @args = $type eq 'disco' ? () : "--$type";

    push @args, '--until-direct=' . ($o{direct} ? 'true' : 'false');
    push @args, '--c', $o{count} // ($o{direct} ? 10 : 1);
    push @args, '--timeout', ($o{timeout} // 3) . 's';
    my $r = $self->tailscale('ping', @args, $address);
    my @pongs = grep { /^pong / } split /\n/, $r->{stdout};
    return $pongs[-1] // '';
}

# block_udp(), unblock_udp(): all UDP that would leave or enter its host.
sub block_udp ($self) {
    $self->{t}->nft($self->{name}, <<'EOF');
table inet block {
    chain out {
        type filter hook output priority 0;
        oifname "eth0" meta l4proto udp drop;
    }
    chain in {
        type filter hook input priority 0;
        iifname "eth0" meta l4proto udp drop;
    }
}
EOF
}

sub unblock_udp ($self) {
    $self->{t}->nft($self->{name}, "delete table inet block\n");
}

sub stop ($self, $signal = 'TERM') {
    return $self->{proc}->stop($signal, Test::Tailnet::Tailscaled::GRACE);
}

1;
