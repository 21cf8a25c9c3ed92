package Test::Tailnet::Netmap;

# Nodes (keys, addresses, users) and the netmap files made of them, in the
# shape of a control server's MapResponse.

use v5.36;

use JSON::PP ();
use MIME::Base64 qw(encode_base64 decode_base64);

use Test::Tailnet::Net;

use constant {
    DOMAIN => 'tailnet.test',
    TAGGED => 'tagged-devices', # the user that tagged nodes belong to
};

# node(name, options): a new member of the mesh, as a hash that the other
# functions take.  A copy with changes, { %$node, tags => [...] }, will do
# for them as well.  Fields, all of which may be given:
#   ns      the host it runs on (default: name)
#   port    UDP port (41641)
#   addr    mesh addresses without prefix ([100.64.0.N, fd7a:115c:a1e0::N])
#   routes  more prefixes behind it ([])
#   user    login name; tags [..] instead makes it a tagged node
#   endpoints  IP:PORT list for netmaps ([underlay address : port])
# and, made here: id, key_file, private (32 bytes), pub (nodekey:HEX).
sub node ($self, $name, %o) {
    my $id = ++$self->{last_node};
    my $node = {
        name => $name,
        id => $id,
        ns => $name,
        port => 41641,
        addr => ["100.64.0.$id", sprintf 'fd7a:115c:a1e0::%x', $id],
        routes => [],
        tags => [],
        key_file => "$self->{dir}/$name.key",
        %o,
    };

    if (!$node->{user} && !$node->{tags}->@*) {
        $node->{user} = "$name\@example.com";
    }
    @$node{qw(private pub)} = $self->genkey;
    $self->write_file("$name.key",
        encode_base64($node->{private}, '') . "\n", 0600);
    my $underlay = $self->underlay($node->{ns});
    $node->{endpoints} //= ["$underlay:$node->{port}"];
    return $node;
}

# nginx_node(name, options): a node that nginx will be; it lives on "host".
sub nginx_node ($self, $name, %o) {
    return $self->node($name, ns => 'host', tags => ['tag:web'], %o);
}

# genkey(): a private key (32 bytes) and its public key ("nodekey:" and hex).
sub genkey ($self) {
    my $der = Test::Tailnet::Net::output(
        qw(openssl genpkey -algorithm X25519 -outform DER));
    my $file = $self->write_file('genkey.der', $der, 0600);
    my $public = Test::Tailnet::Net::output(
        qw(openssl pkey -pubout -inform DER -outform DER -in), $file);
    unlink $file;
    # Both are ASN.1 with the 32 bytes of the key last (RFC 8410).
    return (substr($der, -32), 'nodekey:' . unpack 'H*', substr $public, -32);
}

# psk(): a preshared key in base64.
sub psk ($self) {
    open my $fh, '<:raw', '/dev/urandom' or die "/dev/urandom: $!";
    read $fh, my $key, 32 or die "/dev/urandom: $!";
    return encode_base64($key, '');
}

# netmap(file, self, peers, options): write a netmap file, in one step as an
# editor or a tool would (a new file renamed over the old).  Options: users
# (login => { DisplayName, ProfilePicURL }), rules (see packet_filter), domain,
# extra (more top-level fields, or changed ones).  Returns the path.
sub netmap ($self, $file, %o) {
    my $domain = $o{domain} // DOMAIN;
    my @peers = ($o{peers} // [])->@*;
    my %map = (
        Node => $self->map_node($o{self}, $domain),
        Peers => [map { $self->map_node($_, $domain) } @peers],
        UserProfiles => $self->map_users([$o{self}, @peers], $o{users} // {}),
        Domain => $domain,
    );

    $map{PacketFilter} = [map { filter_rule($_) } $o{rules}->@*]
        if $o{rules};
    %map = (%map, $o{extra}->%*) if $o{extra};
    my $json = JSON::PP->new->canonical->pretty->utf8->encode(\%map);
    $self->write_file("$file.new", $json);
    rename "$self->{dir}/$file.new", "$self->{dir}/$file"
        or die "$file: $!";
    return "$self->{dir}/$file";
}

# map_node(node, domain): one Node object.  Besides node()'s fields: fqdn,
# stable_id, online, key_expiry (RFC 3339), cap_map, map (more fields).
sub map_node ($self, $node, $domain) {
    my @own = map { /:/ ? "$_/128" : "$_/32" } $node->{addr}->@*;
    my @tags = $node->{tags}->@*;
    my %map = (
        ID => $node->{id},
        StableID => $node->{stable_id} // "n$node->{id}TEST",
        Name => $node->{fqdn} // "$node->{name}.$domain.",
        User => $self->user_id(@tags ? TAGGED : $node->{user}),
        Key => $node->{pub},
        Addresses => \@own,
        AllowedIPs => [@own, $node->{routes}->@*],
        Endpoints => $node->{endpoints},
    );

    $map{Tags} = \@tags if @tags;
    $map{KeyExpiry} = $node->{key_expiry} if defined $node->{key_expiry};
    $map{CapMap} = $node->{cap_map} if $node->{cap_map};
    if (defined $node->{online}) {
        $map{Online} = $node->{online} ? JSON::PP::true : JSON::PP::false;
    }
    return {%map, ($node->{map} // {})->%*};
}

sub map_users ($self, $nodes, $details) {
    my %logins = map { $_->{tags}->@* ? (TAGGED, 1) : ($_->{user}, 1) }
        @$nodes;

    return [map {
        my ($local) = /^([^@]+)/;
        {
            ID => $self->user_id($_),
            LoginName => $_,
            DisplayName => ucfirst $local,
            ProfilePicURL => '',
            ($details->{$_} // {})->%*,
        }
    } sort keys %logins];
}

# user_id(login): the same number for the same login during a test.
sub user_id ($self, $login) {
    return $self->{users}{$login} //= 1000 + keys $self->{users}->%*;
}

# filter_rule(rule): { src => [..], dst => ['100.64.0.1:80', '*:1-1023',
# '[fd7a::1]:*'], proto => [6] } as a rule of the packet filter.
sub filter_rule ($rule) {
    my @dst = map {
        my ($ip, $first, $last) =
            /^\[?(.+?)\]?:(?:(\d+)(?:-(\d+))?|\*)\z/
            or die "\"$_\" is not ADDRESS:PORTS";
        {
            IP => $ip,
            Ports => {
                First => 0 + ($first // 0),
                Last => 0 + ($last // $first // 65535),
            },
        }
    } $rule->{dst}->@*;
    my %map = (SrcIPs => $rule->{src}, DstPorts => \@dst);

    $map{IPProto} = [map { 0 + $_ } $rule->{proto}->@*] if $rule->{proto};
    return \%map;
}

1;
