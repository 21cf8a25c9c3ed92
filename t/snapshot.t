# Snapshots that no tailnetd would make: a worker refuses or survives them, and
# without a good one nobody has an identity.  fake_tailnetd hands them out; its
# listening sockets are the host's, and the peer is a second address there.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(also => ['fake_tailnetd']);

my $maker = $t->node('maker');
my $alice = $t->node('alice', user => 'alice@example.com');
my $bob = $t->node('bob', user => 'bob@example.com');
my $seed = $ENV{TAILNET_SEED} // 4711;

# A good one, from a tailnetd that takes nginx's place.
my $client = $t->start_tailnetd_client($maker, peers => [$alice, $bob]);
my $fake = $t->binary('fake_tailnetd');
my $r = $t->run_command([$fake, 'save', $client->socket, 'maker', 'good.snap']);
ok($r->{ok}, 'a good snapshot') or diag($r->{output});
$client->stop;
my $good = Test::Tailnet::Process::slurp($t->testdir . '/good.snap');
cmp_ok(length $good, '>', 112, 'it is longer than its head');

# Fields of tn_snap_head: offset and pack() letter.
my %field = (
    magic => [0, 'a8'], version => [8, 'L'], size => [12, 'L'],
    generation => [16, 'Q'], self => [24, 'L'], npeers => [28, 'L'],
    addr_off => [32, 'L'], addr_slots => [36, 'L'], name_off => [40, 'L'],
    name_slots => [44, 'L'], tag_off => [48, 'L'], ntags => [52, 'L'],
    self_expiry => [56, 'q'], domain => [64, 'LL'], reserved => [80, 'L'],
);

sub changed ($bytes, %value) {
    for my $name (keys %value) {
        my ($at, $letter) = $field{$name}->@*;
        my $new = pack $letter,
            ref $value{$name} ? $value{$name}->@* : $value{$name};
        substr $bytes, $at, length $new, $new;
    }
    return $bytes;
}

sub field ($name) {
    my ($at, $letter) = $field{$name}->@*;
    return unpack "x$at $letter", $good;
}

$t->write_config(<<'EOF');
tailnet_engine unix:%%TESTDIR%%/fake.sock binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/maker.json;
    private_key  %%TESTDIR%%/maker.key;
}
worker_processes 1;
events { }
http {
    root %%TESTDIR%%/html;
    server {
        tailnet_listen 80;
        add_header X-User "$tailnet_user" always;
        add_header X-Acl "$tailnet_acl" always;
        add_header X-Self "$tailnet_self_name" always;
        location / { tailnet_acl accept alice@example.com; }
        location /names {
            tailnet_acl accept tag:x alice.tailnet.test bob 100.64.0.0/24 *;
            try_files /index.html =404;
        }
        location /open { try_files /index.html =404; }
        location /upstream { proxy_pass http://mesh; }
    }
    upstream mesh { tailnet_server alice:80; tailnet_server tag:x:80; }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
my $server = $t->spawn('host', [$fake, 'serve', 'fake.sock', 'web'],
    name => 'fake');
ok($server->wait_stdout(qr/^ready$/m, 5), 'the fake is ready');
$t->run;

my $home = $t->underlay('host');
$t->run_in('host', qw(ip addr add), "$_->{addr}[0]/32", qw(dev lo))
    for $alice, $bob;

sub ask ($node, $path) {
    $r = $t->http_get('host', "http://$home$path", timeout => 5,
        curl => ['--interface', $node->{addr}[0]]);
    return join ' ', $r->status, $r->header('x-user') || '-';
}

my $sent = 0;
sub order ($line) {
    $sent++;
    syswrite $server->{pipe}, "$line\n";
    return Test::Tailnet::Process::until_true(5,
        sub { (() = $server->stdout =~ /^sent 1$/mg) == $sent });
}

# publish(bytes, generation, how): a message about a file of these bytes.
sub publish ($bytes, $generation, $how = '') {
    my $file = $t->write_file('now.snap', $bytes);
    return order("snapshot $generation $file $how");
}

# What is sent later than a refused one has been seen when the refusal is in
# the log.
sub refused ($bytes, $generation, $how, $why) {
    my $mark = $t->log_mark;
    publish($bytes, $generation, $how) or return 0;
    return $t->wait_for_log(
        qr/refused snapshot $generation of node "web": $why/, 5,
        from => $mark);
}
sub settled ($generation) { refused('x', $generation, '', 'it is too small') }

my ($worker) = $t->workers;

# None at all.
ok($t->wait_for_log(qr/no snapshot of node "web" yet, its peers are unknown/,
    5), 'the log says that there is none');
is(ask($alice, '/'), '403 -', 'without a snapshot nobody is let in');
is($r->header('x-acl'), 'reject (no snapshot of the tailnet)', 'the reason');
is(ask($alice, '/names'), '403 -', 'by no rule');
is(ask($alice, '/open'), '200 -', 'what has no rules is served');
is(ask($alice, '/upstream'), '502 -', 'no upstream is known');

# Bad ones: there is still none.
my $size = length $good;
my @bad = (
    ['unsealed', $good, 'unsealed', 'it is not sealed'],
    ['writable', $good, 'writable', 'it is not sealed'],
    ['empty', '', '', 'it is too small or too large'],
    ['a part of the head', substr($good, 0, 100), '', 'it is too small'],
    ['truncated', substr($good, 0, $size - 8), ''],
    ['longer', $good . "\0" x 8, ''],
    ['bad magic', changed($good, magic => "TNSNAP\n\n"), ''],
    ['an older version', changed($good, version => 1), ''],
    ['a newer version', changed($good, version => 3), ''],
    ['size too large', changed($good, size => $size + 4096), ''],
    ['size 0', changed($good, size => 0), ''],
    ['another generation', changed($good, generation => 99), '',
        'it is of another generation'],
    (map { ["$_ far away", changed($good, $_ => 0xfffffff8), ''] }
        qw(self addr_off name_off)),
    ['tags far away', changed($good, tag_off => 0xfffffff8, ntags => 1), ''],
    ['no self', changed($good, self => 0), ''],
    ['self in the head', changed($good, self => 8), ''],
    ['odd offset', changed($good, addr_off => field('addr_off') + 1), ''],
    ['slots no power of two', changed($good, addr_slots => 3), ''],
    ['no slots', changed($good, addr_slots => 0), ''],
    ['too many slots', changed($good, name_slots => 1 << 30), ''],
    ['too many tags', changed($good, ntags => 0x7fffffff), ''],
    ['domain far away', changed($good, domain => [$size - 4, 400]), ''],
);
my $generation = 10;
for my $case (@bad) {
    my ($name, $bytes, $how, $why) = @$case;
    $generation++;
    $bytes = changed($bytes, generation => $generation)
        if length $bytes > 24 && $name ne 'another generation';
    ok(refused($bytes, $generation, $how,
        ($why // '\S') . '.*; no peer is known'), "$name: refused")
        or diag($t->log_since(0) =~ /(refused.*)\n\z/);
}
publish($good, ++$generation, 'writable');
like($t->run_in('host', $t->binary('tailnetctl'), '--socket',
    $t->testdir . '/fake.sock', 'whois', "web/$alice->{addr}[0]")->{stderr},
    qr/the snapshot of "web" is not sealed/, 'nor does tailnetctl take it');
is(ask($alice, '/'), '403 -', 'there is still none');
is(ask($alice, '/open'), '200 -', 'and the worker serves');

# A good one, and bad ones after it.
ok(publish(changed($good, generation => ++$generation), $generation), 'good');
ok(settled(9), 'and seen');
is(ask($alice, '/'), '200 alice@example.com', 'alice is known');
is(ask($bob, '/'), '403 bob@example.com', 'and bob');
is($r->header('x-self'), 'maker.tailnet.test', 'and the node itself');
is(ask($alice, '/names'), '200 alice@example.com', 'all rules work');
for my $case (@bad, ['older', changed($good, generation => 5), '',
    'it is older than the one before', 5]) {
    my ($name, $bytes, $how, $why, $number) = @$case;
    $number //= ++$generation;
    $bytes = changed($bytes, generation => $number)
        if length $bytes > 24 && $name ne 'another generation';
    ok(refused($bytes, $number, $how,
        ($why // '\S') . '.*; the one before stays'), "$name: refused");
}
my $mark = $t->log_mark;
order("nofd $_") for 1, 2;
order('short');
ok($t->wait_for_log(qr/(?:malformed message about a snapshot.*){3}/s, 5,
    from => $mark), 'messages without a file or an end');
is(ask($alice, '/'), '200 alice@example.com', 'the one before rules');

# A head that is right over records that are not: every record is checked at
# its use.  Whoever is known is who they are; nothing else may be let in.
srand $seed;
my %seen;
for my $n (1 .. 60) {
    my $bytes = $good;
    if ($n % 3 == 0) {
        # All behind the head is random.
        substr $bytes, 112, $size - 112,
            join '', map { chr int rand 256 } 113 .. $size;
    } elsif ($n % 3 == 1) {
        # Some bytes are.
        substr $bytes, 112 + int rand($size - 112), 1, chr int rand 256
            for 1 .. 1 + $n;
    } else {
        # Some words are large or small.
        substr $bytes, 112 + 4 * int(rand(($size - 112) / 4)), 4,
            pack 'L', (0, 1, 8, 0xffffffff, 0x7ffffff8, $size, $size - 8)
            [rand 7] for 1 .. 1 + $n / 4;
    }
    publish(changed($bytes, generation => ++$generation), $generation);
    settled(9) or diag("random $n: not seen");
    for my $path ('/', '/names', '/upstream') {
        ask($alice, $path);
        $seen{$r->status}++;
    }
}
is(join(' ', grep { !/^(?:200|403|502)$/ } sort keys %seen), '',
    "random records (TAILNET_SEED=$seed): an answer to each") or diag(%seen);
cmp_ok($seen{403} // 0, '>', 0, 'some are refused');
is(($t->workers)[0], $worker, 'by a worker that lives');

# Addresses that lead nowhere: the lowest 5 bits of a slot are the hash, the
# others the offset.
my $bytes = changed($good, generation => ++$generation);
for my $at (map { field('addr_off') + 4 * $_ } 0 .. field('addr_slots') - 1) {
    my $slot = unpack 'L', substr $bytes, $at, 4;
    substr $bytes, $at, 4, pack 'L', $slot | 0xffffffe0 if $slot != 0;
}
publish($bytes, $generation);
settled(9);
$mark = $t->log_mark;
is(ask($alice, '/'), '403 -', 'slots that point nowhere');
like($t->log_since($mark),
    qr/snapshot $generation of node "web" has a bad record/, 'is in the log');

# And a good one again.
ok(publish(changed($good, generation => ++$generation), $generation), 'good');
ok(settled(9), 'and seen');
is(ask($alice, '/'), '200 alice@example.com', 'alice is known again');
is(ask($bob, '/'), '403 bob@example.com', 'and bob is bob');

# The key of nginx's own node expires.
ok(publish(changed($good, generation => ++$generation,
    self_expiry => time + 2), $generation), 'the own key expires soon');
settled(9);
is(ask($alice, '/'), '200 alice@example.com', 'before');
ok($t->wait_for_log(qr/the key of node "web" has expired/, 5),
    'the log says so');
is(ask($alice, '/'), '403 -', 'after');
is($r->header('x-acl'), "reject (this node's key has expired)", 'the reason');

# The fake ends: what is known stays.
ok(publish(changed($good, generation => ++$generation), $generation), 'good');
ok(settled(9), 'and seen');
$server->stop;
ok($t->wait_for_log(qr/lost the channel to tailnetd/, 5), 'it ends');
is(ask($alice, '/'), '200 alice@example.com', 'what is known stays in use');
is(($t->workers)[0], $worker, 'the worker is the first one');

$t->done_testing;
