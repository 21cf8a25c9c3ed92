# Twenty reloads and a binary upgrade under load: not one request fails, and a
# download that began before all of it comes whole.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA ();
use Test::More;
use Test::Tailnet;

use constant {
    SIZE => 100 << 20,
    RELOADS => 20,
    # Beyond this the download is paused until everything has happened.
    HOLD => 70 << 20,
};

my $t = Test::Tailnet->new(also => ['reqloop']);

my $web = $t->nginx_node('web');
my @peers = map { $t->node($_) } qw(alice bob);
$t->netmap('web.json', self => $web, peers => \@peers);

$t->write_config(<<'EOF');
worker_processes 2;
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        tailnet_acl accept *;
        root %%TESTDIR%%/html;
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
my $sha = make_big('html/big');

# No part of the file is like another.
sub make_big ($name) {
    my $digest = Digest::SHA->new(256);

    open my $fh, '>:raw', $t->testdir . "/$name" or die "$name: $!";
    for my $i (0 .. SIZE / 4096 - 1) {
        my $block = pack('N', $i) x 1024;
        $digest->add($block);
        print $fh $block;
    }
    close $fh or die "$name: $!";
    return $digest->hexdigest;
}

$t->run;
$t->start_wgpeer($_, peers => [$web]) for @peers;

my $big = $t->fetch('bob', 'http://100.64.0.1/big', rate => '20M',
    timeout => 120);
ok($big->wait_received(1 << 20, 10), 'a long download has begun');
my @loops = map {
    $t->start_reqloop($_, url => 'http://100.64.0.1:80/', parallel => 4,
        interval => 5, timeout => 10_000, size => 6)
} qw(alice bob);
my @tailnetd = ($t->holder, $t->engine);

sub hold () { $big->alive && $big->received > HOLD && kill 'STOP', $big->pid }

my $done = 0;
for (1 .. RELOADS) {
    $done += $t->reload;
    hold;
}
is($done, RELOADS, RELOADS . ' reloads');

my $old = $t->master;
ok($t->upgrade_start, 'a new binary starts');
hold;
ok(kill('WINCH', $old), 'the workers of the old one are told to end');
# The new binary's workers answer alone.
ok($t->requests(100), 'requests go on');
ok($big->alive && $big->received < SIZE, 'the download spans it all');
kill 'QUIT', $old;
kill 'CONT', $big->pid;

my $r = $big->response;
ok($r->ok, 'it comes to its end') or diag($r->text);
is($r->sha256, $sha, 'whole and right');
ok($t->upgrade_finish, 'the old binary ends');

for my $loop (@loops) {
    my $s = $loop->stop;
    is($s->{failures}, 0, "none of $s->{requests} requests failed")
        or diag(explain($s->{reasons}));
    cmp_ok($s->{requests}, '>', 100, 'and there were many');
    # A lost SYN is sent again after a second.
    cmp_ok($s->{max_gap_ms}, '<', 1000, 'nobody waited long');
    note("longest gap $s->{max_gap_ms} ms, request $s->{max_ms} ms");
}
is_deeply([$t->holder, $t->engine], \@tailnetd,
    'tailnetd is the same all the time');

$t->done_testing;
