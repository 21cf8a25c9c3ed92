# bench.pl [--rounds N] [--seconds N]: what the mesh costs, measured side by
# side.
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
use lib $FindBin::Bin, "$FindBin::Bin/../t/lib";

use Bench;
use Test::Tailnet;

my ($rounds, $seconds) = options(@ARGV);
$ENV{TAILNET_NO_SKIP} = 1;
my $t = Test::Tailnet->new;

# ---- three ways ----

my $web = $t->nginx_node('web');
my $alice = $t->node('client', user => 'alice@example.com');
my $gohost = $t->node('gohost', addr => ['100.64.0.8']);
my $go = $t->node('goclient', addr => ['100.64.0.9']);
my $wire = $t->underlay('wire');
$t->netmap('web.json', self => $web, peers => [$alice]);

html($t);

my $server = <<'CONF';
        root %%TESTDIR%%/html;
        location /plain/ { alias %%TESTDIR%%/html/; }
CONF
my ($http, $rules) = (HTTP, RULES);
$t->write_config(<<"CONF");
worker_processes 1;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web { netmap %%TESTDIR%%/web.json; private_key %%TESTDIR%%/web.key; port 41641; }
events { worker_connections 2048; }
http {
$http
    server {
        tailnet_listen 80;
        listen 10.77.0.1:8080;
$server
        location /ruled/ {
            alias %%TESTDIR%%/html/;
$rules
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

my (undef, $plain_worker) = plain_nginx($t, 'gohost', "server { listen 80;\n$server }");

my $holder = $t->holder;
my %way = (
    tailnet => { who => 'client', url => 'http://100.64.0.1', server => {
            engine => $t->engine($holder), nginx => $worker, holder => $holder },
        client => $t->engine($client->pid) },
    'wireguard-go' => { who => 'goclient', url => 'http://100.64.0.8', server => {
            'wireguard-go' => $goserver->pid, nginx => $plain_worker },
        client => $goclient->pid },
    veth => { who => 'wire', url => 'http://10.77.0.1:8080', server => { nginx => $worker } },
);
my @ways = ('tailnet', 'wireguard-go', 'veth');

# ---- measuring ----

$t->http_get($way{$_}{who}, "$way{$_}{url}/1k")->ok or die "$_ does not answer\n" for @ways;
my %load = (
    '1 KB, 32 connections' => ['/plain/1k', '-c32'],
    '1 MB, 8 connections' => ['/plain/1m', '-c8'],
    'new connections' => ['/plain/1k', '-c16', '-H', 'Connection: close'],
    '1 KB, 1 connection' => ['/plain/1k', '-c1'],
);
my @loads = ('1 KB, 32 connections', '1 MB, 8 connections', 'new connections',
    '1 KB, 1 connection');
my %rows = map {
    my $args = $load{$_};
    $_ => sample(\@ways, sub ($way) { load_on($t, $way{$way}, @$args) })
} @loads;

# ---- showing ----

print "Median of $rounds rounds of $seconds s (lowest–highest).\n\n";
for my $what (@loads) {
    my $bulk = $what =~ /MB/;

    table($what, \@ways, $rows{$what},
        $bulk ? ['MB/s', sub ($r) { $r->{mbps} }]
        : [$what =~ /new/ ? 'connections/s' : 'requests/s', sub ($r) { $r->{rps} }],
        ['p50 µs', sub ($r) { $r->{p50} }], ['p99 µs', sub ($r) { $r->{p99} }],
        $bulk ? ['server CPU s/GB', \&server_gb] : ['server CPU µs/request', \&server_us],
        ['client tunnel', $bulk ? \&client_gb : \&client_us]);
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
