# bench [--rounds N] [--seconds N]: what the mesh costs, measured side by side.
#
# Three ways to one nginx configuration, alternating in one run:
#
#   tailnet       a tailnetd client ── this module
#   wireguard-go  a wireguard-go client ── wireguard-go on a TUN, plain nginx
#   veth          a client on the wire ── plain nginx
#
# All ends share the machine's CPUs, load generator included; read the ratios.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/../t/lib";

use Getopt::Long;
use JSON::PP;
use Test::Tailnet;

my ($rounds, $seconds) = (3, 3);
GetOptions('rounds=i' => \$rounds, 'seconds=i' => \$seconds) or exit 2;
$ENV{TAILNET_NO_SKIP} = 1;
my $t = Test::Tailnet->new;
my $hz = 100;

# ---- three ways ----

my $web = $t->nginx_node('web');
my $alice = $t->node('client', user => 'alice@example.com');
my $gohost = $t->node('gohost', addr => ['100.64.0.8']);
my $go = $t->node('goclient', addr => ['100.64.0.9']);
my $wire = $t->underlay('wire');
$t->netmap('web.json', self => $web, peers => [$alice]);

mkdir $t->testdir . '/html' or die "html: $!";
$t->write_file('html/1k', 'x' x 1024);
$t->write_file('html/1m', 'x' x 1_048_576);

my $server = <<'CONF';
        root %%TESTDIR%%/html;
        location /plain/ { alias %%TESTDIR%%/html/; }
CONF
my $http = "    sendfile on;\n    tcp_nopush on;\n    keepalive_requests 100000000;\n";
$t->write_config(<<"CONF");
worker_processes 1;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web { netmap %%TESTDIR%%/web.json; private_key %%TESTDIR%%/web.key; port 41641; }
events { worker_connections 2048; }
http {
    access_log off;
$http
    server {
        tailnet_listen 80;
        listen 10.77.0.1:8080;
$server
        location /ruled/ {
            alias %%TESTDIR%%/html/;
            tailnet_acl accept tag:none bob\@example.com alice\@example.com;
            tailnet_limit_req rate=1000000r/s burst=1000000 nodelay;
        }
    }
}
CONF
# For counting: the same, in the foreground, by workers that may write here.
$t->write_file('counted.conf', Test::Tailnet::Process::slurp($t->testdir . '/nginx.conf')
    =~ s/daemon on;/daemon off;/r =~ s/user [^;]+;/user root;/r);
$t->run;
my ($worker) = $t->workers;
my $client = $t->start_tailnetd_client($alice, peers => [$web],
    rules => [{ src => ['*'], dst => ['*:*'] }]);
my $goserver = $t->start_wgpeer($gohost, peers => [$go]);
my $goclient = $t->start_wgpeer($go, peers => [$gohost]);

my $plain = $t->expand(<<"CONF");
daemon off; worker_processes 1; pid %%TESTDIR%%/plain.pid; error_log %%TESTDIR%%/plain.log;
events { worker_connections 2048; }
http { access_log off;
$http
  client_body_temp_path %%TESTDIR%%/b; proxy_temp_path %%TESTDIR%%/p; fastcgi_temp_path %%TESTDIR%%/f;
  uwsgi_temp_path %%TESTDIR%%/u; scgi_temp_path %%TESTDIR%%/s;
  server { listen 80; $server } }
CONF
my $plain_nginx = $t->spawn('gohost', [$t->binary('nginx'), '-c',
    $t->write_file('plain.conf', $plain)], name => 'plain');
Test::Tailnet::Process::until_true(5, sub { -s $t->testdir . '/plain.pid' })
    or die $plain_nginx->stderr;
my ($plain_worker) = $t->children($plain_nginx->pid);

sub engine_of ($pid) {
    my ($e) = grep { Test::Tailnet::Process::title($_) =~ /--engine/ } $t->children($pid);
    return $e // die "no engine of $pid\n";
}

my $holder = $t->holder;
my %way = (
    tailnet => { who => 'client', url => 'http://100.64.0.1', server => {
            engine => engine_of($holder), nginx => $worker, holder => $holder },
        client => engine_of($client->pid) },
    'wireguard-go' => { who => 'goclient', url => 'http://100.64.0.8', server => {
            'wireguard-go' => $goserver->pid, nginx => $plain_worker },
        client => $goclient->pid },
    veth => { who => 'wire', url => 'http://10.77.0.1:8080', server => { nginx => $worker } },
);
my @ways = ('tailnet', 'wireguard-go', 'veth');

# ---- measuring ----

# Seconds of CPU a process has used.
sub cpu ($pid) {
    my @f = split / /, Test::Tailnet::Process::slurp("/proc/$pid/stat") =~ s/^.*\) //sr;

    return ($f[11] + $f[12]) / $hz;
}

sub private_kb ($pid) {
    my $text = Test::Tailnet::Process::slurp("/proc/$pid/smaps_rollup");

    return sum($text =~ /^Private_(?:Clean|Dirty): +(\d+)/mg);
}

sub dirty_kb ($pid) {
    my ($kb) = Test::Tailnet::Process::slurp("/proc/$pid/smaps_rollup")
        =~ /^Private_Dirty: +(\d+)/m;
    return $kb;
}

sub wrk ($way, $path, @args) {
    my $w = $way{$way};
    my %before = map { $_ => cpu($w->{server}{$_}) } keys $w->{server}->%*;
    my $client = $w->{client} ? cpu($w->{client}) : 0;
    my $r = $t->run_in($w->{who}, 'wrk', '-t1', "-d$seconds", '--latency', @args,
        "$w->{url}$path");
    my ($n, $size, $unit) = $r->{output} =~ m{(\d+) requests in [\d.]+s, ([\d.]+)([KMG]?B)}
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
        cpu => { map { $_ => cpu($w->{server}{$_}) - $before{$_} } keys %before },
        client_cpu => $w->{client} ? cpu($w->{client}) - $client : 0,
    };
}

sub us ($n, $unit) { $n * { us => 1, ms => 1000, s => 1e6 }->{$unit} }

sub sum (@n) { my $s = 0; $s += $_ for @n; return $s }
sub median (@n) { @n = sort { $a <=> $b } @n; return $n[$#n / 2] }

my %rows;
sub measure ($what, $path, @args) {
    for my $round (1 .. $rounds) {
        for my $way (@ways) {
            push $rows{$what}{$way}->@*, wrk($way, $path, @args);
        }
    }
}

$t->http_get($way{$_}{who}, "$way{$_}{url}/1k")->ok or die "$_ does not answer\n" for @ways;
measure('1 KB, 32 connections', '/plain/1k', '-c32');
measure('1 MB, 8 connections', '/plain/1m', '-c8');
measure('new connections', '/plain/1k', '-c16', '-H', 'Connection: close');
measure('1 KB, 1 connection', '/plain/1k', '-c1');

# ---- showing ----

sub spread ($list, $of) {
    my @n = sort { $a <=> $b } map { $of->($_) } @$list;

    return sprintf '%s (%s–%s)', map { $_ >= 100 ? sprintf '%.0f', $_ : sprintf '%.3g', $_ }
        median(@n), $n[0], $n[-1];
}

my %columns = (
    '1 KB, 32 connections' => ['requests/s', sub ($r) { $r->{rps} }],
    '1 MB, 8 connections' => ['MB/s', sub ($r) { $r->{mbps} }],
    'new connections' => ['connections/s', sub ($r) { $r->{rps} }],
    '1 KB, 1 connection' => ['requests/s', sub ($r) { $r->{rps} }],
);
print "Median of $rounds rounds of $seconds s (lowest–highest).\n\n";
for my $what ('1 KB, 32 connections', '1 MB, 8 connections', 'new connections',
    '1 KB, 1 connection') {
    my ($unit, $of) = $columns{$what}->@*;

    printf "%-22s | %-24s | %-22s | %-22s | %-30s | %s\n", $what, $unit, 'p50 µs', 'p99 µs',
        $what =~ /MB/ ? 'server CPU s/GB' : 'server CPU µs/request', 'client tunnel';
    for my $way (@ways) {
        my $list = $rows{$what}{$way};
        my $per = $what =~ /MB/ ? sub ($r, $s) { $s / ($r->{bytes} / 1e9) }
            : sub ($r, $s) { $s * 1e6 / $r->{requests} };

        printf "%-22s | %-24s | %-22s | %-22s | %-30s | %s%s\n", $way, spread($list, $of),
            spread($list, sub ($r) { $r->{p50} }), spread($list, sub ($r) { $r->{p99} }),
            spread($list, sub ($r) { $per->($r, sum(values $r->{cpu}->%*)) }),
            spread($list, sub ($r) { $per->($r, $r->{client_cpu}) }),
            (grep { $_->{errors} } @$list) ? ' ERRORS' : '';
    }
    print "\n";
}

# Tunnel CPU, both ends, for the same bytes: of ours and theirs.
sub tunnel ($way, $r) {
    my $mine = $way eq 'tailnet' ? 'engine' : 'wireguard-go';
    return ($r->{cpu}{$mine} + $r->{client_cpu}) / ($r->{bytes} / 1e9);
}
sub ratio ($what, $of) {
    my %m = map { my $w = $_; $w => median(map { $of->($w, $_) } $rows{$what}{$w}->@*) } @ways;
    return $m{tailnet} / $m{'wireguard-go'};
}
printf "bulk throughput against wireguard-go:       %.2f ×\n",
    ratio('1 MB, 8 connections', sub ($w, $r) { $r->{mbps} });
printf "tunnel CPU per GB against wireguard-go:     %.2f ×\n",
    median(map { tunnel('tailnet', $_) } $rows{'1 MB, 8 connections'}{tailnet}->@*)
    / median(map { tunnel('wireguard-go', $_) } $rows{'1 MB, 8 connections'}{'wireguard-go'}->@*);
printf "1 KB requests/s against wireguard-go:       %.2f ×\n",
    ratio('1 KB, 32 connections', sub ($w, $r) { $r->{rps} });
printf "added to a round trip over veth (p50):      %.0f µs\n",
    median(map { $_->{p50} } $rows{'1 KB, 1 connection'}{tailnet}->@*)
    - median(map { $_->{p50} } $rows{'1 KB, 1 connection'}{veth}->@*);
printf "private memory: holder %d KB, engine %d KB (dirty %d + %d)\n",
    private_kb($holder), private_kb($way{tailnet}{server}{engine}),
    dirty_kb($holder), dirty_kb($way{tailnet}{server}{engine});

# Instructions of a worker per request, with and without identity, ACL and
# limit: counted by valgrind, which is the same on every machine and every time.
$t->stop;
if (grep { -x "$_/valgrind" } split /:/, $ENV{PATH}) {
    my ($plain, $ruled) = map { instructions($_) } '/plain/1k', '/ruled/1k';

    printf "identity, ACL and limit: %.0f on top of %.0f instructions a request, %.1f %%\n",
        $ruled - $plain, $plain, 100 * ($ruled / $plain - 1);
} else {
    print "identity, ACL and limit: not counted, valgrind is missing\n";
}

sub instructions ($path) {
    my ($few, $many) = map { counted($path, $_) } 200, 1200;

    return ($many - $few) / 1000;
}

sub counted ($path, $requests) {
    my $out = $t->testdir . "/callgrind.$requests" . $path =~ s/\W/-/gr;
    my $nginx = $t->spawn('host', ['valgrind', '--tool=callgrind', '-q',
        "--callgrind-out-file=$out.%p", $t->binary('nginx'), '-p', $t->testdir . '/',
        '-c', $t->testdir . '/counted.conf'], name => 'counted',
        stdin => '/dev/null');

    $t->wait_http('client', "http://100.64.0.1$path", 30)->ok
        or die 'nginx under valgrind does not answer: ' . $nginx->stderr;
    my $load = $t->run_in('client', 'h2load', '--h1', '-n', $requests, '-c', 4,
        "http://100.64.0.1$path");
    $load->{output} =~ /\b$requests succeeded/ or die $load->{output};
    $nginx->stop('QUIT', 20);
    # The worker is who worked most; the file of the master is small.
    return (sort { $b <=> $a } map { Test::Tailnet::Process::slurp($_) =~ /^(?:summary|totals): (\d+)/m }
        glob "$out.*")[0];
}
