package Test::Tailnet::Peers;

# What nginx meets in a test: WireGuard peers, mesh clients, impaired paths,
# request loops and small HTTP servers.

use v5.36;

use IO::Socket::UNIX;
use JSON::PP ();

use Test::Tailnet::Process;

# start_wgpeer(node, peers): wireguard-go in the node's namespace.  A peer is
# a node, or { %$node, ... } with
#   endpoint   IP:PORT instead of the node's first; '' for none
#   allowed    prefixes instead of its addresses and routes
#   psk        preshared key, base64
#   keepalive  seconds
# Returns a Test::Tailnet::Peers::WireGuard.
sub start_wgpeer ($self, $node, %o) {
    my $name = $node->{name};
    my $socket = "$self->{dir}/$name.ctl";
    my @cmd = ($self->binary('wgpeer'), '-tun', 'mesh0', '-port',
        $node->{port}, '-mtu', $o{mtu} // 1280, '-key', $node->{key_file},
        '-addr', join(',', prefixes($node->{addr}->@*)), '-control', $socket,
        '-log', "$self->{dir}/$name.wgpeer.log",
        map { ('-peer', peer_spec($_)) } ($o{peers} // [])->@*);
    my $proc = $self->spawn($node->{ns}, \@cmd, name => "$name.wgpeer");

    $proc->wait_stdout(qr/^ready$/m, 10)
        or die "wgpeer $name: not ready: " . $proc->stderr;
    return bless {
        proc => $proc,
        socket => $socket,
        node => $node,
    }, 'Test::Tailnet::Peers::WireGuard';
}

sub prefixes (@addresses) {
    return map { m{/} ? $_ : /:/ ? "$_/128" : "$_/32" } @addresses;
}

sub peer_spec ($peer) {
    my @allowed = prefixes(
        ($peer->{allowed} // [$peer->{addr}->@*, $peer->{routes}->@*])->@*);
    my $endpoint = $peer->{endpoint} // $peer->{endpoints}[0] // '';
    my @spec = ("pub=$peer->{pub}", 'allowed=' . join '+', @allowed);

    push @spec, "endpoint=$endpoint" if $endpoint ne '';
    push @spec, "psk=$peer->{psk}" if $peer->{psk};
    push @spec, "keepalive=$peer->{keepalive}" if $peer->{keepalive};
    return join ',', @spec;
}

# start_impair(to, options): a UDP relay on a host of its own.  to is a node
# or IP:PORT; options: name, port (41641), loss, dup, reorder (percent), delay,
# jitter (ms), seed.  Returns a Test::Tailnet::Peers::Impair.
sub start_impair ($self, %o) {
    my $name = $o{name} // 'impair' . ++$self->{impairs};
    my $to = ref $o{to} ? $o{to}{endpoints}[0] : $o{to};
    my $listen = $self->underlay($name) . ':' . ($o{port} // 41641);
    my $socket = "$self->{dir}/$name.ctl";
    my @cmd = ($self->binary('impair'), '--listen', $listen, '--to', $to,
        '--control', $socket, '--seed', $o{seed} // 1);

    for my $key (qw(loss dup reorder delay jitter)) {
        push @cmd, '--' . impair_option($key), $o{$key} if defined $o{$key};
    }
    my $proc = $self->spawn($name, \@cmd, name => $name);
    $proc->wait_stdout(qr/^ready$/m, 5)
        or die "impair $name: not ready: " . $proc->stderr;
    return bless {
        proc => $proc,
        socket => $socket,
        endpoint => $listen,
    }, 'Test::Tailnet::Peers::Impair';
}

sub impair_option ($key) { $key =~ /^(?:delay|jitter)$/ ? "$key-ms" : $key }

# start_reqloop(who, url, options): requests without end, see tests/lib/
# reqloop.c.  Options: parallel (4), count, interval, timeout (ms), status,
# size, expect_file, host, headers.  It returns when the first request has
# succeeded, unless first => 0 is given.  ->stop gives the summary.
sub start_reqloop ($self, $who, %o) {
    my $name = 'reqloop' . ++$self->{reqloops};
    my @cmd = ($self->binary('reqloop'), '--url', $o{url}, '--parallel',
        $o{parallel} // 4);
    my %flag = (count => 'count', interval => 'interval-ms', timeout =>
        'timeout-ms', status => 'status', size => 'size', expect_file =>
        'expect-file', host => 'host');

    for my $key (sort keys %flag) {
        push @cmd, "--$flag{$key}", $o{$key} if defined $o{$key};
    }
    push @cmd, map { ('--header', $_) } ($o{headers} // [])->@*;
    my $proc = $self->spawn($who, \@cmd, name => $name);
    if ($o{first} // 1) {
        $proc->wait_stdout(qr/^ready$/m, 10)
            or die "reqloop: no request succeeded: " . $proc->stdout
            . $proc->stderr;
    }
    return bless { proc => $proc }, 'Test::Tailnet::Peers::Reqloop';
}

# start_tailnetd_client(node, peers, options): the project's own tailnetd, as a
# mesh client: requests made as this node go through "tailnetctl exec".  The
# netmap is made of node and peers; options: rules, users (see netmap),
# config (more lines of the node's block), env.  Returns a
# Test::Tailnet::Peers::Client.
sub start_tailnetd_client ($self, $node, %o) {
    my $name = $node->{name};
    my $base = "$self->{dir}/$name";
    my $netmap = $self->netmap("$name.json", self => $node,
        map { ($_ => $o{$_}) } grep { $o{$_} } qw(peers rules users));

    $self->write_file("$name.conf", <<"EOF");
tailnet_node $name {
    netmap $netmap;
    private_key $node->{key_file};
    port $node->{port};
    @{[$o{config} // '']}
}
EOF
    my $proc = $self->spawn($node->{ns}, [$self->binary('tailnetd'), '-c',
        "$base.conf", '--socket', "$base.sock", '--log', "$base.tailnetd.log"],
        name => "$name.tailnetd", env => $o{env} // {});
    my $client = bless {
        t => $self,
        proc => $proc,
        node => $node,
        socket => "$base.sock",
    }, 'Test::Tailnet::Peers::Client';
    my $inside = [$self->prefix($node->{ns}), $self->binary('tailnetctl'),
        '--socket', $client->{socket}, 'exec', $name, '--'];

    my $up;
    for my $try (1 .. 100) {
        $up = $proc->alive && $self->run_command([@$inside, 'true'])->{ok};
        last if $up || !$proc->alive;
        select undef, undef, undef, 0.1;
    }
    die "tailnetd $name: not ready: " . $proc->stderr . "\n"
        . Test::Tailnet::Process::slurp("$base.tailnetd.log") if !$up;
    $self->{inside}{$name} = $inside;
    return $client;
}

# start_httpd(who, options): an HTTP server of files (root, default the test's
# directory) on addr (default all) and port (8000), with /echo for the request
# as it came; see httpd.pl.
sub start_httpd ($self, $who, %o) {
    my $name = 'httpd' . ++$self->{httpds};
    my $proc = $self->spawn($who, [$^X, __FILE__ =~ s/Peers\.pm\z/httpd.pl/r,
        $o{addr} // '0.0.0.0', $o{port} // 8000, $o{root} // $self->{dir}],
        name => $name);

    $proc->wait_stdout(qr/^ready$/m, 5)
        or die "httpd: not ready: " . $proc->stderr;
    return $proc;
}

# converse(socket, line): one command of a control socket; its answer's lines.
sub converse ($path, $line, $last) {
    my $socket = IO::Socket::UNIX->new(Peer => $path)
        or die "$path: $!";
    my @answer;

    print $socket "$line\n";
    while (my $got = <$socket>) {
        chomp $got;
        die "\"$line\": $got\n" if $got =~ /^error: /;
        return @answer if $got eq 'ok';
        push @answer, $got;
        return @answer if $got =~ $last;
    }
    die "$path: closed before an answer to \"$line\"\n";
}

package Test::Tailnet::Peers::WireGuard;

sub node ($self) { $self->{node} }
sub pid ($self) { $self->{proc}->pid }
sub alive ($self) { $self->{proc}->alive }
sub stop ($self, @how) { $self->{proc}->stop(@how) }

# command(line): see tests/peers/wgpeer/control.go.
sub command ($self, $line) {
    return Test::Tailnet::Peers::converse(
        $self->{socket}, $line, qr/(?!)/);
}

# rebind(port): another UDP port from now on; 0: any.
sub rebind ($self, $port = 0) { $self->command("rebind $port") }

sub set_endpoint ($self, $peer, $endpoint) {
    $self->command("endpoint $peer->{pub} $endpoint");
}

# add_peer(peer): add or replace, with the fields start_wgpeer takes.
sub add_peer ($self, $peer) {
    $self->command('peer ' . Test::Tailnet::Peers::peer_spec($peer));
}

sub remove_peer ($self, $peer) { $self->command("remove $peer->{pub}") }

# status(): { listen_port, peers => { "nodekey:HEX" => { endpoint, rx_bytes,
# tx_bytes, last_handshake_time_sec, ... } } }.
sub status ($self) {
    my $status = { peers => {} };
    my $at = $status;

    for ($self->command('status')) {
        my ($key, $value) = split /=/, $_, 2;
        if ($key eq 'public_key') {
            $at = $status->{peers}{"nodekey:$value"} = {};
        } elsif ($key eq 'allowed_ip') {
            push $at->{allowed_ips}->@*, $value;
        } else {
            $at->{$key} = $value;
        }
    }
    return $status;
}

sub peer_status ($self, $peer) {
    return $self->status->{peers}{$peer->{pub}}
        // die "$self->{node}{name} has no peer $peer->{name}";
}

# handshake(peer): when the last handshake was completed, Unix seconds with
# fraction; 0: never.
sub handshake ($self, $peer) {
    my $p = $self->peer_status($peer);
    return $p->{last_handshake_time_sec} + $p->{last_handshake_time_nsec} / 1e9;
}

# wait_handshake(peer, seconds, after): wait for one later than after.
sub wait_handshake ($self, $peer, $seconds = 10, $after = 0) {
    return Test::Tailnet::Process::until_true($seconds,
        sub { $self->handshake($peer) > $after });
}

package Test::Tailnet::Peers::Impair;

sub endpoint ($self) { $self->{endpoint} }
sub pid ($self) { $self->{proc}->pid }

# set(name => value, ...): loss, dup, reorder, delay or jitter from now on.
sub set ($self, %o) {
    for my $key (sort keys %o) {
        Test::Tailnet::Peers::converse($self->{socket}, 'set '
            . Test::Tailnet::Peers::impair_option($key) . " $o{$key}",
            qr/(?!)/);
    }
}

# stats(): { clients, evicted, queued, up => { received, sent, lost,
# duplicated, reordered, overflow, orphaned, send_errors }, down => {..} }.
sub stats ($self) {
    return JSON::PP::decode_json((Test::Tailnet::Peers::converse(
        $self->{socket}, 'stats', qr/^\{/))[0]);
}

# stop(): end it; the last stats.
sub stop ($self) {
    $self->{proc}->stop;
    my ($json) = $self->{proc}->stdout =~ /^(\{.*\})$/m;
    return JSON::PP::decode_json($json // die 'impair told no counters');
}

package Test::Tailnet::Peers::Reqloop;

sub pid ($self) { $self->{proc}->pid }

# stop(seconds): let the requests in flight end; wait(seconds): until count
# is reached.  Both give { requests, ok, failures, max_ms, mean_ms,
# max_gap_ms, elapsed_ms, reasons => [{ at_ms, reason }] }.
sub stop ($self, $seconds = 10) {
    $self->{proc}->stop('TERM', $seconds);
    return $self->summary;
}

sub wait ($self, $seconds = 30) {
    $self->{proc}->wait($seconds) // return $self->stop;
    return $self->summary;
}

sub summary ($self) {
    my ($json) = $self->{proc}->stdout =~ /^(\{.*\})$/m;
    return JSON::PP::decode_json($json
        // die 'reqloop told no summary: ' . $self->{proc}->stderr);
}

package Test::Tailnet::Peers::Client;

sub node ($self) { $self->{node} }
sub pid ($self) { $self->{proc}->pid }
sub alive ($self) { $self->{proc}->alive }
sub socket ($self) { $self->{socket} }

sub stop ($self, @how) {
    delete $self->{t}{inside}{$self->{node}{name}};
    return $self->{proc}->stop(@how);
}

# ctl(args): tailnetctl at this client's socket; as run_command.
sub ctl ($self, @args) {
    my $t = $self->{t};
    return $t->run_command([$t->prefix($self->{node}{ns}),
        $t->binary('tailnetctl'), '--socket', $self->{socket}, @args]);
}

1;
