# A control server that answers garbage: nothing that ruled is touched, the
# reason is in log and status, and the node is back when the server is.
# control_garbage_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Test::Tailnet;

our $headscale;
my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl control)]);

my $control = $t->start_control(headscale => $headscale, keys => [
    { Key => 'ops', User => 'ops@example.com', Reusable => \1 }]);
my $url = $control->url;

$t->write_file('ops.key', "ops\n", 0600);
# One failure after the other, and a pause that does not grow with them.
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%% timing=backoff=400;
tailnet_node web {
    control_url $url; state %%TESTDIR%%/state;
    auth_key file:%%TESTDIR%%/ops.key;
}
events { }
http { server { listen 127.0.0.1:8080; return 204; } }
EOF
$t->run;

# self(): the node's address; a message that is long keeps the engine busy.
sub self () {
    my $address;

    Test::Tailnet::Process::until_true(15,
        sub { defined($address = $t->node_status->{self}{addresses}[0]) });
    return $address;
}

# wait_running(): at once, however often the server failed before.
sub wait_running ($streams = 0) {
    $t->ctl('login', 'web');
    return Test::Tailnet::Process::until_true(15, sub {
        my $c = $t->node_status->{control} // {};
        ($c->{state} // '') eq 'running' && $c->{streams} > $streams;
    });
}

# A zstd frame of an uncompressed block.
sub zstd ($text) {
    return pack('V C V', 0xfd2fb528, 0xa0, length $text)
        . substr(pack('V', length($text) << 3 | 1), 0, 3) . $text;
}

# A frame that becomes so many times 128 kB, of four bytes each.
sub bomb ($n) {
    my $block = sub ($last) {
        substr(pack('V', 128 << 13 | 1 << 1 | $last), 0, 3) . ' ';
    };
    return pack('V C C', 0xfd2fb528, 0, 0x50) . $block->(0) x ($n - 1)
        . $block->(1);
}

sub message ($bytes) { pack('V', length $bytes) . $bytes }

ok(wait_running(), 'the node joins');
my $self = self();

my $good = message(zstd('{"Node":{"ID":1,"Addresses":["100.64.0.9/32"]}}'));
my @cases = (
    # what, the stream's bytes, the reason, the end of the stream
    ['a length of 0', "\0\0\0\0", qr/a message of length 0/],
    ['a length of 4 GB', "\xff\xff\xff\xff", qr/more than MAP_FRAME_MAX/],
    ['no zstd', message('{"Node":{}}'), qr/no zstd frame/],
    ['half a zstd frame', message(substr zstd('{"Node":{}}'), 0, -3),
        qr/ends within its zstd frame/],
    ['a zstd bomb', message(bomb(2100)), qr/longer than MAP_FRAME_PLAIN_MAX/],
    ['no JSON', message(zstd('garbage')), qr/line 1, column/],
    ['another JSON', message(zstd('[1,2]')), qr/an object expected/],
    ['a stream without Node', message(zstd('{"Peers":[]}')), qr/no Node/],
    ['a wrong type', message(zstd('{"Node":{"ID":"x"}}')),
        qr/Node\.ID: an integer expected/],
    ['a filter that is none',
        message(zstd('{"Node":{"ID":1,"Addresses":["100.64.0.9/32"]},'
            . '"PacketFilter":{"a":1}}')), qr/PacketFilter: a list expected/],
    (map { ["$_ bytes of a message", substr($good, 0, $_),
        qr/it ended the map stream/, \1] } 0, 3, 4, length($good) - 1),
);

for my $case (@cases) {
    my ($what, $bytes, $reason, $end) = @$case;
    my $mark = $t->log_mark;
    my $streams = $t->node_status->{control}{streams};

    $control->fault(Path => '/machine/map', Count => 2, End => $end // \0,
        Raw => encode_base64($bytes, ''));
    $control->command('POST', '/nodes/web/kick');
    ok($t->wait_for_log($reason, 10, from => $mark), "$what: the log says it");
    is(self(), $self, 'what ruled goes on ruling');
    $control->fault();
    ok(wait_running($streams), 'and the node is back');
}

# ---- before the stream ----

for my $case (
    ['/key', { Status => 200, Body => 'mkey' }, qr/its key cannot be fetched: .*no JSON/],
    ['/key', { Status => 500 }, qr/its key cannot be fetched: HTTP status 500/],
    ['/key', { Status => 301 }, qr/HTTP status 301 \(is "control_url" that/],
    ['/ts2021', { Status => 403 }, qr/refuses the upgrade \(HTTP status 403\)/],
    ['/ts2021', { Close => \1 }, qr/may not accept capability version 131/],
) {
    my ($path, $fault, $reason) = @$case;
    my $mark = $t->log_mark;
    my $streams = $t->node_status->{control}{streams};

    # The key is fetched again after a dial that failed.
    $control->fault(Path => '/ts2021', Status => 502) if $path eq '/key';
    $control->fault(Path => $path, %$fault, Count => 1) if $path ne '/key';
    $control->command('POST', '/nodes/web/kick');
    if ($path eq '/key') {
        $t->wait_for_log(qr/HTTP status 502/, 10, from => $mark);
        $control->fault(Path => $path, %$fault, Count => 1);
    }
    ok($t->wait_for_log($reason, 10, from => $mark), "$path: the log says it");
    $control->fault();
    ok(wait_running($streams), 'and the node is back');
}

$t->done_testing;
