package Test::Tailnet::Process;

# A program that a test has started: its output goes to files, its standard
# input is a pipe that ends when the test does, whatever way that happens.

use v5.36;

use POSIX ();
use Time::HiRes qw(time sleep);

use constant POLL => 0.01;

# new(name, cmd, dir): start a program.  Options: env (hash ref), stdin (a
# file instead of the pipe).
sub new ($class, %o) {
    my $self = bless {
        name => $o{name},
        out => "$o{dir}/$o{name}.stdout",
        err => "$o{dir}/$o{name}.stderr",
        owner => $$,
    }, $class;
    my $stdin;

    # Emptied here, so that nobody reads what one of the same name said before.
    for my $file ($self->{out}, $self->{err}) {
        open my $fh, '>', $file or die "$file: $!";
    }
    if (defined $o{stdin}) {
        open $stdin, '<', $o{stdin} or die "$o{stdin}: $!";
    } else {
        pipe $stdin, $self->{pipe} or die "pipe: $!";
    }
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        become(\%o, $stdin, $self);
        POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    return $self;
}

sub become ($o, $stdin, $self) {
    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
    @ENV{keys $o->{env}->%*} = values $o->{env}->%* if $o->{env};
    open STDIN, '<&', $stdin or return;
    open STDOUT, '>>', $self->{out} or return;
    open STDERR, '>>', $self->{err} or return;
    # What is left behind is recognized by its working directory.
    chdir $o->{dir} or return;
    no warnings 'exec';
    exec { $o->{cmd}[0] } $o->{cmd}->@*;
    print STDERR "$o->{cmd}[0]: $!\n";
}

sub pid ($self) { $self->{pid} }
sub name ($self) { $self->{name} }
sub stdout ($self) { slurp($self->{out}) }
sub stderr ($self) { slurp($self->{err}) }

# status(): the wait status, or undef while it runs.
sub status ($self) {
    return $self->{status} if defined $self->{status};
    return undef if waitpid($self->{pid}, POSIX::WNOHANG) != $self->{pid};
    close delete $self->{pipe} if $self->{pipe};
    return $self->{status} = $?;
}

# exit_code(): 0 to 255, or minus the signal that ended it.
sub exit_code ($self) {
    my $status = $self->status // return undef;
    return $status & 127 ? -($status & 127) : $status >> 8;
}

sub alive ($self) { !defined $self->status }

# wait(seconds): the exit code, or undef when it still runs.
sub wait ($self, $seconds) {
    until_true($seconds, sub { !$self->alive });
    return $self->exit_code;
}

# wait_stdout(regex, seconds): true when the output matches; false when time
# is up or the program has ended without.
sub wait_stdout ($self, $regex, $seconds) {
    my $seen;

    until_true($seconds, sub {
        my $ended = !$self->alive;
        $seen = $self->stdout =~ $regex;
        return $seen || $ended;
    });
    return $seen;
}

# say(line): to its standard input.
sub say ($self, $line) {
    syswrite $self->{pipe}, "$line\n" or die "$self->{name}: $!";
}

sub signal ($self, $name) {
    return $self->alive && kill $name, $self->{pid};
}

# stop(signal, seconds): end it and return the exit code; one that does not
# end in time is killed, which the exit code (-9) shows.
sub stop ($self, $signal = 'TERM', $seconds = 5) {
    $self->signal($signal);
    if (!defined $self->wait($seconds)) {
        $self->signal('KILL');
        $self->wait(5);
    }
    return $self->exit_code;
}

sub until_true ($seconds, $condition) {
    my $end = time + $seconds;

    while (1) {
        my $value = $condition->();
        return $value if $value || time >= $end;
        sleep POLL;
    }
}

sub slurp ($path) {
    open my $fh, '<:raw', $path or return '';
    local $/;
    return scalar <$fh> // '';
}

# running(pid): it exists and is no zombie.
sub running ($pid) {
    return slurp("/proc/$pid/stat") =~ /^\d+ \(.*\) ([A-Z])/s && $1 ne 'Z';
}

# title(pid): the command line, words joined by spaces.
sub title ($pid) {
    return slurp("/proc/$pid/cmdline") =~ s/\0+\z//r =~ tr/\0/ /r;
}

sub parent ($pid) {
    return slurp("/proc/$pid/stat") =~ /^\d+ \(.*\) [A-Z] (\d+)/s ? $1 : 0;
}

sub all_pids () {
    opendir my $dir, '/proc' or die "/proc: $!";
    return grep { /^\d+\z/ } readdir $dir;
}

1;
