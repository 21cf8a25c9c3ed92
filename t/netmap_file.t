# The netmap file rules as it is on disk: every way to change it is followed
# without a restart within a second, and what cannot be used changes nothing
# and says why.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;
use Time::HiRes qw(time);

use constant { WITHIN => 1, MANY => 10_000 };

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my $alice = $t->node('alice');
my $bob = $t->node('bob');
my $mount = $t->nginx_node('mount', port => 41642);
my $dir = $t->testdir;

# The files of a Kubernetes secret: netmap -> ..data/netmap, ..data -> ..N.
mkdir "$dir/secret" or die;
sub secret ($n, @how) {
    my $old = readlink "$dir/secret/..data";
    mkdir "$dir/secret/..$n" or die "..$n: $!";
    $t->netmap("secret/..$n/netmap", self => $mount, @how);
    symlink "..$n", "$dir/secret/..tmp" or die "..tmp: $!";
    rename "$dir/secret/..tmp", "$dir/secret/..data" or die "..data: $!";
    return if !defined $old;
    unlink "$dir/secret/$old/netmap" or die "$old: $!";
    rmdir "$dir/secret/$old" or die "$old: $!";
}
secret(1, peers => [$alice]);
symlink '..data/netmap', "$dir/secret/netmap" or die;

sub rule (%o) {
    return $t->netmap('web.json', self => $web, peers => [$alice, $bob], %o);
}
rule();
$t->write_config(<<'EOC');
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
tailnet_node mount {
    netmap       %%TESTDIR%%/secret/netmap;
    private_key  %%TESTDIR%%/mount.key;
    port         41642;
}
events { }
http {
    server {
        tailnet_listen web:80;
        keepalive_timeout 0;
        location / {
            tailnet_acl accept *;
            add_header X-Node $tailnet_node;
            add_header X-User $tailnet_user;
            root %%TESTDIR%%/html;
        }
    }
}
EOC
mkdir "$dir/html";
$t->write_file('html/hello', "hello\n");
$t->run;
$t->start_wgpeer($alice, peers => [$web]);

sub asks ($who, %o) {
    return $t->http_get($who, 'http://100.64.0.1/hello', %o);
}

# soon(condition, what): it becomes true, and in time.
sub soon ($condition, $what, $within = WITHIN) {
    my $start = time;
    my $true = Test::Tailnet::Process::until_true(10, $condition);

    ok($true, $what);
    cmp_ok(time - $start, '<', $within + 0.5, '  within ' . $within . ' s')
        if $true;
}

sub header ($name) { asks('alice')->header($name) // '' }

sub peers ($name = 'web') {
    return join ' ', map { $_->{name} =~ s/\..*//r }
        $t->node_status($name)->{peers}->@*;
}

is(header('x-node'), 'alice.tailnet.test', 'the first netmap rules');

subtest 'ways to change a file' => sub {
    rule(peers => [{ %$alice, user => 'renamed@example.com' }, $bob]);
    soon(sub { header('x-user') eq 'renamed@example.com' }, 'renamed over');

    my $text = Test::Tailnet::Process::slurp("$dir/web.json");
    $text =~ s/renamed\@example/rewritten\@example/ or die;
    my $inode = (stat "$dir/web.json")[1];
    $t->write_file('web.json', $text);
    is((stat "$dir/web.json")[1], $inode, 'written in place');
    soon(sub { header('x-user') eq 'rewritten@example.com' }, 'rewritten');

    open my $fh, '>:raw', "$dir/web.json" or die;
    $fh->autoflush;
    for my $part ($text =~ s/rewritten\@/pieces\@/r =~ /(.{1,400})/gs) {
        print $fh $part;
        select undef, undef, undef, 0.05;
    }
    close $fh or die;
    soon(sub { header('x-user') eq 'pieces@example.com' },
        'written in pieces');

    is(peers('mount'), 'alice', 'behind links, as Kubernetes mounts a secret');
    secret(2, peers => [$bob]);
    soon(sub { peers('mount') eq 'bob' }, 'swapped links');
    secret(3, peers => [$alice, $bob]);
    soon(sub { peers('mount') eq 'alice bob' }, 'swapped again');
    is($t->node_status('mount')->{error}, '', 'without an error');
};

sub replace ($text) {
    rename $t->write_file('web.json.new', $text), "$dir/web.json"
        or die "web.json: $!";
}

# A file that is no use: what ruled goes on, and everybody is told why.
sub refused ($what, $error, $make) {
    my $mark = $t->log_mark;

    $make->();
    soon(sub { $t->node_status('web')->{error} =~ $error },
        "$what: status says so");
    ok($t->wait_for_log(qr/\[error\].*tailnetd.*$error/, 2, from => $mark),
        '  so does the log') or diag($t->log_since($mark));
    like($t->ctl('status', 'web')->{stdout}, $error, '  so does the table');
    is(header('x-user'), 'pieces@example.com', '  the old one rules');
    is(scalar(() = $t->log_since($mark) =~ /$error/g), 1, '  said once')
        or diag($t->log_since($mark));
}

subtest 'files that are no use' => sub {
    my $good = Test::Tailnet::Process::slurp("$dir/web.json");
    my $lines = () = $good =~ /\n/g;

    refused('cut off', qr{web\.json: line @{[$lines + 1]}\b},
        sub { replace($good =~ s/\}\s*\z/\n/r) });
    my ($before) = $good =~ /^(.*)"Peers"/s;
    my $line = 1 + (() = $before =~ /\n/g);
    refused('a syntax error', qr{web\.json: line $line\b}, sub {
        replace($good =~ s/"Peers" :/"Peers" ;/r);
    });
    refused('a bad key', qr{web\.json: Peers\[1\]\.Key\b}, sub {
        rule(peers => [$alice, { %$bob, pub => 'nodekey:00' }]);
    });
    refused('a key twice', qr{web\.json: Peers\[1\]\.Key\b}, sub {
        rule(peers => [$alice, { %$bob, pub => $alice->{pub} }]);
    });
    refused('an address twice', qr{web\.json: Peers\[1\]\.Addresses}, sub {
        rule(peers => [$alice, { %$bob, addr => $alice->{addr} }]);
    });
    refused("the node's own key", qr{web\.json: Peers\[1\]\.Key\b}, sub {
        rule(peers => [$alice, { %$bob, pub => $web->{pub} }]);
    });
    refused('not of this node', qr{web\.json: Node\.Key\b},
        sub { rule(self => { %$web, pub => $bob->{pub} }, peers => [$alice]) });
    refused('empty', qr{web\.json: },
        sub { replace('') });
    refused('gone', qr{web\.json: No such file},
        sub { unlink "$dir/web.json" or die });
    replace($good);
    soon(sub { $t->node_status('web')->{error} eq '' }, 'it is back');
    refused('writable by others', qr{web\.json: others .*mode 0666},
        sub { chmod 0666, "$dir/web.json" or die });
    chmod 0644, "$dir/web.json" or die;
    soon(sub { $t->node_status('web')->{error} eq '' }, 'not any more');
    refused("somebody else's", qr{web\.json belongs to uid 12345: }, sub {
        $t->write_file('other', $good);
        chown 12345, 12345, "$dir/other" or die;
        rename "$dir/other", "$dir/web.json" or die;
    });
    refused('a directory', qr{web\.json: not a regular file}, sub {
        unlink "$dir/web.json" or die;
        mkdir "$dir/web.json" or die;
    });
    rmdir "$dir/web.json" or die;
    rule(peers => [{ %$alice, user => 'back@example.com' }, $bob]);
    soon(sub { header('x-user') eq 'back@example.com' }, 'a good one rules');
    is($t->node_status('web')->{error}, '', 'and there is no error any more');
};

subtest 'many peers' => sub {
    my @many = map { {
        %$alice,
        name => "n$_",
        id => 100 + $_,
        pub => sprintf('nodekey:%064x', $_ + 1e6),
        addr => [sprintf('100.80.%d.%d', $_ >> 8, $_ & 255)],
        endpoints => [],
    } } 1 .. MANY;

    my $path = rule(peers => [$alice, @many, $bob]);
    my $start = time;
    ok(Test::Tailnet::Process::until_true(20, sub {
        $t->read_log =~ /netmap applied: @{[MANY + 2]} peers/;
    }), MANY . ' of them');
    cmp_ok(time - $start, '<', 5, 'soon');
    note(sprintf '%.2f s', time - $start);
    is(asks('alice')->status, 200, 'alice is still served');
    like($t->ctl('whois', 'web/100.80.39.16')->{stdout}, qr/n10000\./,
        'the last one is known');
    is(scalar $t->node_status('web')->{peers}->@*, MANY + 2,
        'status lists them all');
    rule();
    soon(sub { peers() eq 'alice bob' }, 'they are gone again', 3);
};

$t->done_testing;
