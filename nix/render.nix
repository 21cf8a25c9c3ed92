# What module.nix writes into configuration files, as functions of its options.
{ lib }:

let
  inherit (lib)
    concatMapStrings
    concatStringsSep
    mapAttrsToList
    optional
    optionalString
    ;

  line = words: concatStringsSep " " words + ";\n";

  # As nginx and tailnetd read it: one word, whatever is in it.
  quote = s: ''"${builtins.replaceStrings [ "\\" ''"'' ] [ "\\\\" ''\"'' ] (toString s)}"'';
in
rec {
  node =
    name: n:
    ''
      tailnet_node ${name} {
    ''
    + optionalString (n.netmap != null) "    netmap ${quote n.netmap};\n"
    + optionalString (n.privateKey != null) "    private_key ${quote n.privateKey};\n"
    + optionalString (n.presharedKeys != null) "    preshared_keys ${quote n.presharedKeys};\n"
    + "    port ${toString n.port};\n"
    + "    mtu ${toString n.mtu};\n"
    + concatStringsSep "" (mapAttrsToList setting n.settings)
    + "}\n";

  # Any other option: true and false are "on" and "off", a list is many words.
  setting =
    name: value:
    let
      words = if builtins.isList value then value else [ value ];
      word = w: if builtins.isBool w then (if w then "on" else "off") else quote w;
    in
    "    ${name} ${concatStringsSep " " (map word words)};\n";

  # The file of "tailnetd -c".
  nodes = ns: concatStringsSep "" (mapAttrsToList node ns);

  # A port, or { node, port, parameters }.
  listen =
    l:
    if builtins.isInt l then
      line [
        "tailnet_listen"
        (toString l)
      ]
    else
      line (
        [
          "tailnet_listen"
          (optionalString (l.node != null) "${l.node}:" + toString l.port)
        ]
        ++ optional l.ssl "ssl"
        ++ l.parameters
      );

  acl = rule: line [ "tailnet_acl ${rule}" ];
  limitReq = limit: line [ "tailnet_limit_req ${limit}" ];

  # What a location and a server have in common.
  common =
    t:
    concatMapStrings acl t.acl
    + concatMapStrings limitReq t.limitReq
    + optionalString (t.headers != null) (
      line [
        "tailnet_headers"
        (if t.headers then "on" else "off")
      ]
    );

  # Names are needed for nodes that nginx does not define itself.
  named =
    only: l:
    let
      full = if builtins.isInt l then { node = null; port = l; ssl = false; parameters = [ ]; } else l;
    in
    full // { node = if full.node == null then only else full.node; };

  server = only: t: concatMapStrings (l: listen (named only l)) t.listen + common t;
}
