# nix/: every file parses, the NixOS module makes of options what it should and
# names mistakes, and what it writes is what tailnetd and nginx read.
#
# NIXPKGS_LIB=/path/of/nixpkgs/lib evaluates with the true library, besides.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";
use File::Find qw(find);
use JSON::PP ();

use Test::More;
use Test::Tailnet;

Test::Tailnet::skip('needs nix-instantiate')
    if !grep { -x "$_/nix-instantiate" } split /:/, $ENV{PATH};

my $t = Test::Tailnet->new(needs => [qw(nginx module tailnetd)]);
my $nix = "$FindBin::Bin/../nix";
my @files;

# As root it wants a group for building, which we don't.
sub instantiate (@args) {
    return $t->run_command(['nix-instantiate', '--store', 'dummy://',
        '--option', 'build-users-group', '', @args]);
}

sub evaluate ($expression) {
    my $r = instantiate('--eval', '--strict', '--json', '-E', $expression);
    return eval { JSON::PP->new->allow_nonref->decode($r->{stdout}) }
        // $r->{stderr};
}

find({ no_chdir => 1, wanted => sub { push @files, $_ if /\.nix\z/ } }, $nix);
ok(@files >= 4, 'files of Nix');
for my $file (sort @files) {
    my $r = instantiate('--parse', $file);
    ok($r->{ok}, 'parses: ' . $file =~ s{.*/nix/}{}r) or diag($r->{stderr});
}

is_deeply(evaluate("import $nix/tests { }"), [], 'checks');
# Where somebody has nixpkgs, they are run with its library, too.
is_deeply(evaluate("import $nix/tests { lib = import $ENV{NIXPKGS_LIB}; }"),
    [], 'checks with the true library') if $ENV{NIXPKGS_LIB};

# The source of the package is the parts that it needs.
my %used = map { $_ => 1 } Test::Tailnet::Process::slurp("$nix/package.nix")
    =~ /builtins\.elem top \[([^\]]*)\]/ ? $1 =~ /"([^"]+)"/g : ();
is_deeply([grep { !-e "$nix/../$_" } sort keys %used], [],
    'what the package is made of is there');
ok($used{config} && $used{ngx_tailnet_module}, 'the module, too');

# What is written is read.
my $web = $t->nginx_node('we"b', ns => 'host')->{key_file};
rename $web, $t->testdir . '/a "key".key';
$t->write_file('netmap.json', '{}');
my $options = '{ netmap = ' . nix_string($t->testdir . '/netmap.json')
    . '; privateKey = ' . nix_string($t->testdir . '/a "key".key')
    . '; presharedKeys = null; port = 41641; mtu = 1300; settings = { }; }';
my $render = "(import $nix/render.nix { lib = import $nix/tests/lib.nix; })";
my $nodes = evaluate("$render.nodes { web = $options; lab-2 = $options // "
    . '{ port = 0; privateKey = "/b"; }; away = ' . $options
    . ' // { netmap = null; privateKey = null; port = 0; settings = { '
    . 'auth_key = "file:/a"; tags = [ "tag:a" "tag:b" ]; ephemeral = true; '
    . '}; }; }');

sub nix_string ($s) { '"' . $s =~ s/([\\"\$])/\\$1/gr . '"' }

$t->write_file('tailnetd.conf', $nodes);
my $r = $t->run_in('host', $t->binary('tailnetd'), '-t', '-c',
    $t->testdir . '/tailnetd.conf');
like($r->{output}, qr/is well: 3 nodes/, 'tailnetd reads its file')
    or diag($nodes);

my $server = evaluate(<<"EOF");
$render.server "web" {
    listen = [ 80 { node = null; port = 81; ssl = false;
        parameters = [ "default_server" ]; } { node = "lab-2"; port = 80;
        ssl = false; parameters = [ ]; } ];
    acl = [ "accept web/tag:dev lab-2/alice\@example.com local" "reject *" ];
    limitReq = [ "rate=20r/s burst=40 nodelay" "rate=2r/s for=web/tag:ci" ];
    headers = false;
}
EOF
is($server =~ tr/;//, 8, 'a server of eight lines') or diag($server);
$r = $t->test_config("tailnet_engine unix:/run/tailnetd/admin.sock;\n"
    . "events { }\nhttp { server {\n$server} }\n");
ok($r->{ok}, 'nginx reads its server') or diag($r->{output});
unlike($r->{output}, qr/\[\w+\]/, 'without a warning');

$t->done_testing;
