package Bench;

# What the benchmarks share: load, what it costs the processes behind, and
# tables.
#
# A way is one that a client has to the same file on a server:
#   who     the host that the load comes from
#   url     of the server
#   name    of the server, for the Host header, or undef: what url says
#   server  { name => pid }: all processes there that work for it
#   client  pid of the client's tunnel, or undef

use v5.36;

use Exporter 'import';
use Getopt::Long qw(GetOptionsFromArray);
use POSIX ();
use Test::Tailnet::Process;

our @EXPORT = qw(options html plain_nginx private_kb dirty_kb load_on sample server_us
    client_us server_gb client_gb sum median table columns RULES HTTP);

# run_in() ends what takes longer than 30 s.
use constant SECONDS_MAX => 25;

# What this module does for a request, all of it.
use constant RULES => <<'EOF';
            tailnet_acl accept tag:none bob@example.com alice@example.com;
            tailnet_limit_req rate=1000000r/s burst=1000000 nodelay;
EOF

# Of every server.
use constant HTTP => <<'EOF';
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
EOF

my ($rounds, $seconds) = (3, 3);
my $hz = POSIX::sysconf(POSIX::_SC_CLK_TCK());

# All ways have the congestion control that a Linux starts with, whatever this
# machine has: bbr paces each connection with timers of its own, which here cost
# a small request more than all the rest.
my $congestion = '/proc/sys/net/ipv4/tcp_congestion_control';
my $before;

END { control($before) if defined $before }

sub control ($name) {
    open my $fh, '>', $congestion or die "$congestion: $!\n";
    print $fh $name;
    close $fh or die "$congestion: $name: $!\n";
}

# options(args): --rounds N, --seconds N, --congestion NAME; returns the first
# two.
sub options (@args) {
    my $name = 'cubic';

    GetOptionsFromArray(\@args, 'rounds=i' => \$rounds,
        'seconds=i' => \$seconds, 'congestion=s' => \$name) && !@args
        or die "usage: [--rounds N] [--seconds N] [--congestion NAME]\n";
    $rounds >= 1 or die "--rounds: at least 1\n";
    $seconds >= 1 && $seconds <= SECONDS_MAX
        or die "--seconds: 1 to @{[SECONDS_MAX]}\n";
    chomp(my $now = Test::Tailnet::Process::slurp($congestion));
    control($name);
    $before = $now; # which new network namespaces take over
    return ($rounds, $seconds);
}

# html(test): the files that are asked for, in html/ of the test's directory.
sub html ($t) {
    mkdir $t->testdir . '/html' or die "html: $!";
    $t->write_file('html/1k', 'x' x 1024);
    $t->write_file('html/1m', 'x' x 1_048_576);
}

# plain_nginx(test, who, text): nginx without the module on a host, with one
# worker and that text inside http {}.  Returns the ids of master and worker.
sub plain_nginx ($t, $who, $text) {
    my $paths = join ' ', map { "${_}_temp_path %%TESTDIR%%/$who.$_;" }
        qw(client_body proxy fastcgi uwsgi scgi);
    my $file = $t->write_file("$who.conf", $t->expand(<<"EOF"));
daemon off;
worker_processes 1;
pid %%TESTDIR%%/$who.pid;
error_log %%TESTDIR%%/$who.log;
events { worker_connections 2048; }
http {
    $paths
@{[HTTP]}
$text
}
EOF
    my $nginx = $t->spawn($who, [$t->binary('nginx'), '-c', $file],
        name => "$who.nginx", stdin => '/dev/null');
    my @workers;

    Test::Tailnet::Process::until_true(5, sub {
        @workers = $t->children($nginx->pid);
    }) or die "nginx on $who: " . $nginx->stderr;
    return ($nginx->pid, $workers[0]);
}

# ---- processes ----

# Seconds of CPU a process has used.
sub cpu ($pid) {
    my @f = split / /,
        Test::Tailnet::Process::slurp("/proc/$pid/stat") =~ s/^.*\) //sr;

    return ($f[11] + $f[12]) / $hz;
}

# private_kb(pid): memory that nobody else maps.  dirty_kb(pid): what of it was
# written.
sub private_kb ($pid) {
    my $text = Test::Tailnet::Process::slurp("/proc/$pid/smaps_rollup");

    return sum($text =~ /^Private_(?:Clean|Dirty): +(\d+)/mg);
}

sub dirty_kb ($pid) {
    my ($kb) = Test::Tailnet::Process::slurp("/proc/$pid/smaps_rollup")
        =~ /^Private_Dirty: +(\d+)/m;
    return $kb;
}

# ---- load ----

# load_on(test, way, path, args): wrk with one thread and these arguments.
sub load_on ($t, $way, $path, @args) {
    my %before = map { $_ => cpu($way->{server}{$_}) } keys $way->{server}->%*;
    my $client = $way->{client} && cpu($way->{client});
    my $r = $t->run_in($way->{who}, 'wrk', '-t1', "-d$seconds", '--latency',
        @args, (map { ('-H', "Host: $_") } $way->{name} // ()),
        "$way->{url}$path");
    my ($n, $size, $unit) =
        $r->{output} =~ m{(\d+) requests in [\d.]+\w+, ([\d.]+)([KMG]?B)}
        or die "wrk: $r->{output}";
    my %scale = (B => 1, KB => 2**10, MB => 2**20, GB => 2**30);
    my $bytes = $size * $scale{$unit};

    return {
        rps => ($r->{output} =~ /Requests\/sec: +([\d.]+)/)[0],
        mbps => $bytes / $seconds / 1e6,
        p50 => us($r->{output} =~ /50% +([\d.]+)(\w+)/),
        p99 => us($r->{output} =~ /99% +([\d.]+)(\w+)/),
        requests => $n,
        bytes => $bytes,
        errors => $r->{output} =~ /Socket errors|Non-2xx/ ? 1 : 0,
        cpu => { map { $_ => cpu($way->{server}{$_}) - $before{$_} }
            keys %before },
        client_cpu => $way->{client} && cpu($way->{client}) - $client,
    };
}

sub us ($n, $unit) { $n * { us => 1, ms => 1000, s => 1e6 }->{$unit} }

# sample(ways, code): what code says of each way in each round, the ways taking
# turns: { name => [...] }.
sub sample ($ways, $code) {
    my %rows;

    for my $round (1 .. $rounds) {
        push $rows{$_}->@*, $code->($_) for @$ways;
    }
    return \%rows;
}

# What a load has cost: CPU of all of the server's processes or of the client's
# tunnel, in microseconds a request and seconds a GB.
sub server_us ($r) { sum(values $r->{cpu}->%*) * 1e6 / $r->{requests} }
sub client_us ($r) {
    return defined $r->{client_cpu}
        ? $r->{client_cpu} * 1e6 / $r->{requests} : undef;
}
sub server_gb ($r) { sum(values $r->{cpu}->%*) / ($r->{bytes} / 1e9) }
sub client_gb ($r) {
    return defined $r->{client_cpu}
        ? $r->{client_cpu} / ($r->{bytes} / 1e9) : undef;
}

# ---- numbers ----

sub sum (@n) { my $s = 0; $s += $_ for @n; return $s }
sub median (@n) { @n = sort { $a <=> $b } @n; return $n[$#n / 2] }

# median (lowest–highest); what is not defined does not exist there.
sub spread ($of, $list) {
    my @n = sort { $a <=> $b } grep { defined } map { $of->($_) } @$list;

    return '–' if !@n;
    return sprintf '%s (%s–%s)',
        map { $_ >= 100 ? sprintf '%.0f', $_ : sprintf '%.3g', $_ }
        median(@n), $n[0], $n[-1];
}

# table(title, ways, samples, columns): columns is a list of [heading, what to
# say of one sample].
sub table ($title, $ways, $rows, @columns) {
    my @lines = [$title, map { $_->[0] } @columns];

    for my $way (@$ways) {
        my $list = $rows->{$way};
        push @lines, [$way, map { spread($_->[1], $list) } @columns];
        $lines[-1][-1] .= ' ERRORS'
            if grep { ref && $_->{errors} } @$list;
    }
    columns(@lines);
}

# columns(lines): lists, one below the other.
sub columns (@lines) {
    my @width;

    for my $line (@lines) {
        for my $i (0 .. $#$line) {
            my $n = characters($line->[$i]);
            $width[$i] = $n if $n > ($width[$i] // 0);
        }
    }
    for my $line (@lines) {
        say join(' | ', map {
            $line->[$_] . ' ' x ($width[$_] - characters($line->[$_]))
        } 0 .. $#$line) =~ s/ +\z//r;
    }
    say '';
}

# Text here is UTF-8.
sub characters ($text) {
    utf8::decode($text);
    return length $text;
}

1;
