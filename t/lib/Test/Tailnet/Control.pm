package Test::Tailnet::Control;

# A control server, a DERP and a STUN server on a host of their own, and what
# an administrator of the tailnet does there.

use v5.36;

use JSON::PP ();

use Test::Tailnet::Process;

# start_control(options): name (control), port (8080), domain: the suffix of
# names (tailnet.test), keys: a list of { Key, User, Tags, Ephemeral, Reusable },
# full => 1: whole netmaps instead of deltas, ephemeral: seconds until an absent
# ephemeral node is removed, regions: number of DERP and STUN servers (1),
# six => 1: one more of these, by IPv6 alone,
# keepalive: milliseconds between words on a map stream, crowd: peers that exist
# in map messages alone, headscale => 1: it does as Headscale does.
# tls: a port for TLS besides, its own authority in TESTDIR/NAME.pem.
# Returns a Test::Tailnet::Control::Server.
sub start_control ($self, %o) {
    my $c = bless {
        t => $self,
        name => $o{name} // 'control',
        port => $o{port} // 8080,
        options => \%o,
    }, 'Test::Tailnet::Control::Server';

    $c->{ip} = $self->underlay($c->{name});
    $c->{relays} = [$c->{ip}];
    for my $n (2 .. $o{regions} // 1) {
        push $c->{relays}->@*, $self->second_address($c->{name});
    }
    push $c->{relays}->@*, $self->underlay6($c->{name}) if $o{six};
    $c->{socket} = "$self->{dir}/$c->{name}.admin";
    return $c->start;
}

package Test::Tailnet::Control::Server;

sub start ($self) {
    my ($t, $o) = $self->@{qw(t options)};
    my @cmd = ($t->binary('control'), '-ip', $self->{ip}, '-port',
        $self->{port}, '-admin', $self->{socket}, '-domain',
        $o->{domain} // 'tailnet.test');

    push @cmd, '-derps', join ',', $self->{relays}->@*;
    push @cmd, '-full' if $o->{full};
    push @cmd, '-headscale' if $o->{headscale};
    push @cmd, '-tls-port', $o->{tls}, '-tls-cert',
        "$t->{dir}/$self->{name}.pem" if $o->{tls};
    push @cmd, '-key', JSON::PP::encode_json($_) for ($o->{keys} // [])->@*;
    push @cmd, '-ephemeral-timeout', "$o->{ephemeral}s"
        if defined $o->{ephemeral};
    push @cmd, '-keepalive', "$o->{keepalive}ms" if defined $o->{keepalive};
    $self->{proc} = $t->spawn($self->{name}, \@cmd,
        name => $self->{name} . ++$self->{starts});
    $self->{proc}->wait_stdout(qr/^ready$/m, 10)
        or die "$self->{name}: not ready: " . $self->{proc}->stderr;
    $self->crowd($o->{crowd}) if $o->{crowd};
    return $self;
}

# stop(), start(): a server that is started again has another key and has
# forgotten all nodes and auth keys but those of start_control().
sub stop ($self) { $self->{proc}->stop('KILL', 5) }

# serve(on): as if it ended or came back, with all that it knew.
sub serve ($self, $on) {
    $self->command('PUT', '/serve', $on ? JSON::PP::true : JSON::PP::false);
}

sub url ($self) { "http://$self->{ip}:$self->{port}" }

# command(method, path, data): data goes as JSON; the answer's text.  See
# tests/peers/control/admin.go.
sub command ($self, $method, $path, @data) {
    my @cmd = ('curl', '-sS', '--fail-with-body', '--max-time', 20,
        '--unix-socket', $self->{socket}, '-X', $method);

    push @cmd, '--data-binary', JSON::PP->new->allow_nonref->encode($data[0])
        if @data;
    my $r = $self->{t}->run_command([@cmd, "http://control$path"]);
    $r->{ok} or die "$self->{name}: $method $path: $r->{output}";
    return $r->{stdout};
}

sub key ($self, %key) { $self->command('POST', '/keys', \%key) }

sub forget_key ($self, $key) { $self->command('DELETE', "/keys/$key") }

# nodes(): what the server knows: a list of { Node, Known, Connected }.
sub nodes ($self) { JSON::PP::decode_json($self->command('GET', '/nodes'))->@* }

# node(hostname): the one that is not removed, or undef.
sub node ($self, $name) {
    my @found = grep { !$_->{Known}{Removed}
            && $_->{Node}{Hostinfo}{Hostname} eq $name } $self->nodes;
    return $found[-1];
}

# wait_node(hostname, seconds, test): waits until test is true of the node.
sub wait_node ($self, $name, $seconds, $test = sub ($n) { $n->{Connected} }) {
    my $node;

    Test::Tailnet::Process::until_true($seconds, sub {
        $node = $self->node($name);
        return $node && $test->($node);
    });
    return $node && $test->($node) ? $node : undef;
}

# set(hostname, fields): User, Tags, Online, Approved, KeyExpiry, CapMap,
# Name ("": its host name), Notices (a patch of DisplayMessages).
sub set ($self, $name, %fields) {
    $self->command('PATCH', "/nodes/$name", \%fields);
}

sub remove ($self, $name) { $self->command('DELETE', "/nodes/$name") }

# message(hostname, message): a MapResponse, as it is.
sub message ($self, $name, $message) {
    $self->command('POST', "/nodes/$name/message", $message);
}

# ping(hostname, ip, types, noise => 1): the node pings somebody; what it says of
# each type, by type.
sub ping ($self, $name, $ip, $types, %o) {
    my $list = $self->command('POST', "/nodes/$name/ping?types=$types&ip=$ip"
        . ($o{noise} ? '&noise=1' : ''));

    return { map { $_->{Type} => $_ } JSON::PP::decode_json($list)->@* };
}

# filters(rules): { NAME => [rule...] }, the packet filter of all; undef: all is
# allowed.
sub filters ($self, $rules) { $self->command('PUT', '/filters', $rules) }

# relay(on, region): ends or starts a region's DERP and STUN servers; who was
# connected to them is cut off.
sub relay ($self, $on, $region = 1) {
    $self->command('PUT', "/relays/$region",
        $on ? JSON::PP::true : JSON::PP::false);
}

# silence(on): it neither says nor answers anything until silence(0).
sub silence ($self, $on) {
    $self->command('PUT', '/silence',
        $on ? JSON::PP::true : JSON::PP::false);
}

# crowd(n): how many peers exist in map messages alone; see crowd.go.
sub crowd ($self, $n) {
    $self->command('PUT', '/crowd', { Peers => $n + 0 });
}

# changes(kind, count, every): messages about one peer of the crowd each, one
# every so many milliseconds; kinds: see crowd.go.  changed(seconds): waits
# until all are sent.
sub changes ($self, $kind, $count, $every = 0) {
    $self->command('POST', '/crowd/changes',
        { Kind => $kind, Count => $count + 0, Every => $every + 0 });
}

sub changed ($self, $seconds) {
    return Test::Tailnet::Process::until_true($seconds, sub {
        JSON::PP::decode_json($self->command('GET', '/crowd'))->{Left} == 0;
    });
}

# fault(fields): Path, Status, RetryAfter, Body, Close, Raw (base64), End, Count.
sub fault ($self, %fault) { $self->command('PUT', '/fault', \%fault) }

1;
