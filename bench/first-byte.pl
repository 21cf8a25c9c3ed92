# first-byte.pl PORT HOST PATH: when a server begins to answer.
#
# It says "ready" and reads an address from standard input.  Then it opens a
# connection every 5 ms, asks on each, and says the time (seconds since the
# epoch) of the first byte of the first answer "200".

use v5.36;

use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(time);

use constant {
    EVERY => 0.005,
    PATIENCE => 2, # with one connection
    LIMIT => 20,   # with all
};

my ($port, $host, $path) = @ARGV;
my $connecting = IO::Select->new;
my $asked = IO::Select->new;
my %begun;

$| = 1;
$SIG{PIPE} = 'IGNORE';
say 'ready';
my $address = <STDIN> // exit 1;
chomp $address;

my $end = time + LIMIT;
for (my $next = time; time < $end;) {
    if (time >= $next) {
        begin();
        $next += EVERY while $next <= time;
    }
    my ($read, $write) = IO::Select->select($asked, $connecting, undef,
        $next > time ? $next - time : 0);
    ask($_) for ($write // [])->@*;
    answer($_) for ($read // [])->@*;
    give_up($_) for grep { time - $begun{$_} > PATIENCE }
        $connecting->handles, $asked->handles;
}
die "no answer from $address:$port within @{[LIMIT]} s\n";

sub begin () {
    my $s = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port,
        Proto => 'tcp', Blocking => 0) or return;

    $begun{$s} = time;
    $connecting->add($s);
}

sub give_up ($s) {
    $connecting->remove($s);
    $asked->remove($s);
    delete $begun{$s};
    close $s;
}

sub ask ($s) {
    my $text = "GET $path HTTP/1.0\r\nHost: $host\r\n\r\n";

    if ((syswrite($s, $text) // 0) == length $text) {
        $connecting->remove($s);
        $asked->add($s);
    } else {
        give_up($s);
    }
}

sub answer ($s) {
    my $now = time;
    my $n = sysread $s, my $head, 4096;

    if ($n && $head =~ m{^HTTP/1\.. 200 }) {
        printf "%.6f\n", $now;
        exit 0;
    }
    give_up($s);
}
