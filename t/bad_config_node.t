# Mistakes in tailnet_node and tailnet_engine: "nginx -t" fails with one line
# that names the place and the reason.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(needs => [qw(nginx module)]);
my $web = $t->nginx_node('web');
my $key = 'key' x 14 . 'k=';

$t->netmap('web.json', self => $web);
$t->nginx_node($_) for qw(other readable);
chmod 0640, $t->testdir . '/readable.key';
$t->write_file('writable.key', 'x', 0620);
$t->write_file('writable.json', '{}', 0646);
mkdir $t->testdir . '/directory';
link $web->{key_file}, $t->testdir . '/linked.key' or die "link: $!";

# result(text): of "nginx -t", the lines of a level, and the line that "#<"
# marks.
sub result ($text, @prefix) {
    my ($before) = $text =~ /\A(.*?)#</s;
    my $line = defined $before ? 1 + $before =~ tr/\n// : undef;
    my $r = @prefix
        ? $t->run_command([$t->prefix('host'), @prefix, $t->binary('nginx'),
            '-p', $t->testdir . '/', '-e', $t->testdir . '/test.log', '-t',
            '-c', $t->write_config($text, file => 'test.conf')])
        : $t->test_config($text);
    return ($r, [grep { /\[\w+\]/ } split /\n/, $r->{output}], $line);
}

sub bad ($name, $text, $regex, @prefix) {
    my ($r, $said, $line) = result($text, @prefix);
    my $place = $t->testdir . '/test.conf:' . ($line // 0);

    subtest $name => sub {
        ok(!$r->{ok}, 'refused');
        is(@$said, 1, 'in one line') or diag($r->{output});
        like($said->[0] // '', $regex, 'with the reason');
        like($said->[0] // '', qr/\[emerg\].* in \Q$place\E\z/, 'and place')
            if $line;
    };
}

sub good ($name, $text, $warning = undef) {
    my ($r, $said) = result($text);

    subtest $name => sub {
        ok($r->{ok}, 'accepted') or diag($r->{output});
        is(@$said, $warning ? 1 : 0, 'lines') or diag($r->{output});
        like($said->[0] // '', qr/\[warn\].*$warning/, 'the warning')
            if $warning;
    };
}

my $events = "events { }\n";
my $files = 'netmap %%TESTDIR%%/web.json; private_key %%TESTDIR%%/web.key;';

# In a block of its own: a line with a mistake.
sub option ($line) {
    return "tailnet_node web {\n netmap %%TESTDIR%%/web.json;\n $line #<\n"
        . " private_key %%TESTDIR%%/web.key;\n}\n$events";
}

sub key ($line) {
    return "tailnet_node web {\n netmap %%TESTDIR%%/web.json;\n $line #<\n"
        . "}\n$events";
}

sub netmap ($line) { "tailnet_node web {\n $line #<\n}\n$events" }

good('a node', "tailnet_node web { $files }\n$events");

# Names.
bad("node name \"$_\"", "tailnet_node '$_' { #<\n $files }\n$events",
    qr/bad node name "\Q$_\E": up to 63 of a-z, 0-9 and inner "-"/)
    for '', 'Web', 'a.b', 'a/b', '-a', 'a-', 'w b';
bad('node name of 64 bytes', 'tailnet_node ' . 'a' x 64
    . " { #<\n $files }\n$events", qr/bad node name "a{64}"/);
bad('no node name', "tailnet_node { #<\n $files }\n$events",
    qr/invalid number of arguments in "tailnet_node"/);
bad('no block', "tailnet_node web; #<\n$events",
    qr/directive "tailnet_node" has no opening "\{"/);
bad('two nodes with one name', "tailnet_node web { $files }\n"
    . "tailnet_node web { #<\n $files }\n$events",
    qr/"web" is already defined in \S+test\.conf:1 /);

# Options.
bad('unknown option', option('tailnet off;'),
    qr/unknown option "tailnet" in tailnet_node "web"/);
bad('option twice', option('netmap %%TESTDIR%%/web.json;'),
    qr/"netmap" is given twice/);
bad('option without value', option('port;'),
    qr/"port": one value expected, got 0/);
bad('option with two values', option('port 1 2;'),
    qr/"port": one value expected, got 2/);
bad("port $_", option("port $_;"),
    qr/"port": a number from 0 to 65535 expected, got "$_"/)
    for 65536, 'no', '-1', '1e3';
bad("mtu $_", option("mtu $_;"),
    qr/"mtu": a number from 1280 to 9000 expected, got "$_"/) for 1279, 9001;
bad('nothing', "tailnet_node web { #<\n port 41641;\n}\n$events",
    qr/tailnet_node "web" has neither a "netmap" nor the "state" of a node that/);
bad('no netmap', "tailnet_node web { #<\n"
    . " private_key %%TESTDIR%%/web.key;\n}\n$events",
    qr/tailnet_node "web" has no "netmap"/);
bad('no private_key', "tailnet_node web { #<\n"
    . " netmap %%TESTDIR%%/web.json;\n}\n$events",
    qr/tailnet_node "web" has no "private_key"/);
bad('a block in a block', option('port { }'),
    qr/unexpected "\{"|one value expected/);

# What two nodes may not share.
my $first = "tailnet_node web { $files port 41641; }\n";
bad('two nodes with one private_key', $first . "tailnet_node b {\n"
    . " netmap %%TESTDIR%%/web.json;\n private_key %%TESTDIR%%/web.key; #<\n"
    . "}\n$events",
    qr/web\.key" is the private_key of tailnet_node "web" already/);
bad('the same by another name', $first . "tailnet_node b {\n"
    . " netmap %%TESTDIR%%/web.json;\n"
    . " private_key %%TESTDIR%%/linked.key; #<\n}\n$events",
    qr/linked\.key" is the private_key of tailnet_node "web" already/);
bad('two nodes with one port', $first . "tailnet_node b { #<\n"
    . " netmap %%TESTDIR%%/web.json;\n private_key %%TESTDIR%%/other.key;\n"
    . " port 41641;\n}\n$events",
    qr/tailnet_node "b" has the "port" 41641 of tailnet_node "web"/);

# Files.
bad('netmap missing', netmap('netmap %%TESTDIR%%/no.json;'),
    qr/netmap: cannot use the file "\S+no\.json" \(2: No such file/);
bad('netmap is a directory', netmap('netmap %%TESTDIR%%/directory;'),
    qr/netmap: "\S+directory" is not a regular file/);
bad('netmap written by others', netmap('netmap %%TESTDIR%%/writable.json;'),
    qr/netmap: "\S+" can be written by group or others, chmod go-w it/);
bad('key missing', key('private_key %%TESTDIR%%/no.key;'),
    qr/private_key: cannot use the file "\S+no\.key" \(2: No such file/);
bad('key written by others', key('private_key %%TESTDIR%%/writable.key;'),
    qr/private_key: "\S+" can be written by group or others, chmod go-w it/);
bad('preshared keys missing', option('preshared_keys %%TESTDIR%%/no.psk;'),
    qr/preshared_keys: cannot use the file "\S+no\.psk" \(2: No such file/);
good('key read by others', key('private_key %%TESTDIR%%/readable.key;'),
    qr/private_key: "\S+" can be read by group or others in \S+:3/);

# Root without the right to read all files, as in a container.
my @weak = ('setpriv', '--bounding-set', '-dac_override,-dac_read_search');
for my $file (qw(other.key web.json)) {
    chown +(getpwnam 'nobody')[2], -1, $t->testdir . "/$file";
    chmod 0600, $t->testdir . "/$file";
}
bad('netmap unreadable', netmap('netmap %%TESTDIR%%/web.json;'),
    qr/netmap: cannot use the file "\S+" \(13: Permission denied\)/, @weak);
chmod 0644, $t->testdir . '/web.json';
bad('key unreadable', key('private_key %%TESTDIR%%/other.key;'),
    qr/private_key: cannot use the file "\S+" \(13: Permission denied\)/,
    @weak);

# A key where its file's name belongs stays out of the log.
for my $secret ('privkey:' . '1' x 64, '1' x 64, $key) {
    my ($r) = result(key("private_key $secret;"));
    ok(!$r->{ok}, 'a key is no file');
    like($r->{output}, qr/"private_key": a path expected, got a key/,
        'which is said');
    unlike($r->{output}, qr/\Q$secret\E/, 'without the key');
}
bad('unknown scheme', key('private_key env:NODE_KEY;'),
    qr/"private_key": "file:PATH" or a path expected, got "env:\.\.\."/);

# Relative names are beside the configuration file, as ssl_certificate's.
good('relative names', "tailnet_node web { netmap web.json; "
    . "private_key file:web.key; }\n$events");
mkdir $t->testdir . '/conf.d';
$t->write_file('conf.d/node.conf',
    "tailnet_node web {\n netmap web.json;\n private_key no.key;\n}\n");
my ($r) = result("include conf.d/*.conf;\n$events");
like($r->{output},
    qr{"\Q@{[$t->testdir]}\E/no\.key" \(2: .* in \S+/conf\.d/node\.conf:3$}m,
    'in an included file, too; the place is in that file');

# tailnet_engine.
sub engine ($text) { "tailnet_engine $text #<\n$events" }
bad('unknown parameter', engine('sock=/x;'), qr/invalid parameter "sock=\/x"/);
bad('no parameter', engine(';'),
    qr/invalid number of arguments in "tailnet_engine"/);
bad('empty parameter', engine('log=;'), qr/invalid parameter "log="/);
bad('parameter twice', engine('level=info level=warn;'),
    qr/duplicate parameter "level=warn"/);
bad('level', engine('level=loud;'),
    qr/invalid level "loud": error, warn, notice, info or debug/);
bad('twice', "tailnet_engine level=info;\ntailnet_engine level=info; #<\n"
    . $events, qr/"tailnet_engine" directive is duplicate/);
bad('socket path too long', "tailnet_engine unix:/" . 'a' x 120 . "; #<\n"
    . "tailnet_node web { $files }\n$events",
    qr/the name of the socket "\S+" is longer than 107 bytes/);
good('a missing binary', "tailnet_engine binary=/no/tailnetd;\n"
    . "tailnet_node web { $files }\n$events",
    qr{cannot run "/no/tailnetd", nginx would start without its mesh});

# "nginx -T" shows names of files, not what is in them.
my $dump = $t->run_command([$t->prefix('host'), $t->binary('nginx'), '-p',
    $t->testdir . '/', '-T', '-c',
    $t->write_config("tailnet_node web { $files }\n$events")]);
my $hex = Test::Tailnet::Process::slurp($web->{key_file})
    =~ s/^privkey:|\s+\z//gr;
cmp_ok(length $hex, '>=', 43, 'the key is known to the test');
like($dump->{output}, qr/private_key \S+web\.key/, 'nginx -T shows the file');
unlike($dump->{output}, qr/\Q$hex\E/, 'and not the key');

ok(!-e $t->testdir . '/nginx-tailnet', 'nginx -t started nothing');

$t->done_testing;
