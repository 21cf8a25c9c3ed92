package Test::Tailnet::HTTP;

# Requests by curl, from inside the network of a host or peer.

use v5.36;

use Test::Tailnet::Process;

# http_get(who, url, options): ask and wait for the answer, a
# Test::Tailnet::HTTP::Response.  Options: method, data, headers (list of
# "Name: value"), timeout (seconds, 10), curl (more arguments).
sub http_get ($self, $who, $url, %o) {
    return $self->fetch($who, $url, %o)->response;
}

# fetch(who, url, options): the same in the background; ->response waits.
# rate => '500k' slows it down.
sub fetch ($self, $who, $url, %o) {
    my $timeout = $o{timeout} // 10;
    my $name = 'curl' . ++$self->{fetches};
    my $file = "$self->{dir}/$name";
    my @args = ('-q', '-sS', '-g', '--noproxy', '*', '--max-time', $timeout,
        '-D', "$file.head", '-o', "$file.body", '-w',
        '%{http_code} %{time_total}');

    push @args, '-X', $o{method} if $o{method};
    push @args, '--data-binary', $o{data} if defined $o{data};
    push @args, '--limit-rate', $o{rate} if $o{rate};
    push @args, map { ('-H', $_) } ($o{headers} // [])->@*;
    push @args, ($o{curl} // [])->@*;
    my $proc = $self->spawn($who, ['curl', @args, $url],
        name => $name, stdin => '/dev/null');
    return bless {
        proc => $proc,
        file => $file,
        url => $url,
        timeout => $timeout + 5,
    }, 'Test::Tailnet::HTTP::Fetch';
}

# wait_http(who, url, seconds, options): ask until there is an answer,
# whatever its status.  Returns it, or the last failure.
sub wait_http ($self, $who, $url, $seconds = 10, %o) {
    my $response;

    Test::Tailnet::Process::until_true($seconds, sub {
        $response = $self->http_get($who, $url, timeout => 2, %o);
        return $response->status;
    });
    return $response;
}

package Test::Tailnet::HTTP::Fetch;

sub pid ($self) { $self->{proc}->pid }
sub alive ($self) { $self->{proc}->alive }
sub stop ($self) { $self->{proc}->stop }

# received(): bytes of the body so far.
sub received ($self) { -s "$self->{file}.body" || 0 }

# wait_received(bytes, seconds): true when so much of the body has come.
sub wait_received ($self, $bytes, $seconds) {
    Test::Tailnet::Process::until_true($seconds,
        sub { $self->received >= $bytes || !$self->alive });
    return $self->received >= $bytes;
}

# response(): wait until it is over.
sub response ($self) {
    $self->{proc}->wait($self->{timeout}) // $self->{proc}->stop('KILL');
    return Test::Tailnet::HTTP::Response->new($self);
}

package Test::Tailnet::HTTP::Response;

use Digest::SHA ();

sub new ($class, $fetch) {
    my ($status, $time) = split ' ', $fetch->{proc}->stdout;
    my $head = Test::Tailnet::Process::slurp("$fetch->{file}.head");
    # Only the last block counts: redirects and 100 Continue come before.
    my ($last) = $head =~ /(HTTP\/(?:(?!\r?\n\r?\n).)*)(?:\r?\n)*\z/s;
    my @lines = split /\r?\n/, ($last // '') =~ s/.*\n(?=HTTP\/)//sr;
    shift @lines;
    return bless {
        url => $fetch->{url},
        status => 0 + ($status // 0),
        time => $time,
        exit => $fetch->{proc}->exit_code,
        error => $fetch->{proc}->stderr =~ s/\s+\z//r,
        file => "$fetch->{file}.body",
        headers => [map { [split /:\s*/, $_, 2] } @lines],
    }, $class;
}

# status(): 0 when there was no answer; then error() tells why and exit() is
# curl's exit code, which is not 0 for a body cut short either.
sub status ($self) { $self->{status} }
sub exit ($self) { $self->{exit} }
sub error ($self) { $self->{error} }
sub time ($self) { $self->{time} }
sub body_file ($self) { $self->{file} }
sub body ($self) { Test::Tailnet::Process::slurp($self->{file}) }
sub size ($self) { -s $self->{file} || 0 }

sub sha256 ($self) {
    return -e $self->{file}
        ? Digest::SHA->new(256)->addfile($self->{file})->hexdigest : '';
}

# headers(): [name, value] pairs in order.  header(name): the values of one,
# joined by ", ", or undef.
sub headers ($self) { $self->{headers}->@* }

sub header ($self, $name) {
    my @values = map { $_->[1] // '' }
        grep { lc $_->[0] eq lc $name } $self->{headers}->@*;
    return @values ? join ', ', @values : undef;
}

# ok(): whole and 200.
sub ok ($self) { $self->{status} == 200 && $self->{exit} == 0 }

# text(): for messages of failing tests.
sub text ($self) {
    return sprintf '%s: status %s, curl exit %s, %s bytes%s', $self->{url},
        $self->{status}, $self->{exit}, $self->size,
        $self->{error} ne '' ? ", $self->{error}" : '';
}

1;
