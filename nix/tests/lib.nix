# A stand-in for nixpkgs' lib, as much of it as module.nix and render.nix use,
# for machines without nixpkgs.  eval knows no types, only defaults.
let
  self = rec {
    inherit (builtins)
      attrNames
      attrValues
      concatLists
      concatMap
      concatStringsSep
      elem
      filter
      length
      mapAttrs
      ;

    any = builtins.any;
    all = builtins.all;
    optional = c: x: if c then [ x ] else [ ];
    optionalString = c: s: if c then s else "";
    mapAttrsToList = f: s: map (n: f n s.${n}) (attrNames s);
    concatMapStrings = f: l: concatStringsSep "" (map f l);
    filterAttrs =
      f: s: removeAttrs s (filter (n: !(f n s.${n})) (attrNames s));
    hasPrefix =
      p: s: builtins.substring 0 (builtins.stringLength p) (toString s) == p;
    escapeShellArgs = concatStringsSep " ";
    unique =
      builtins.foldl' (l: x: if elem x l then l else l ++ [ x ]) [ ];
    literalExpression = text: text;

    mkOption = o: o // { isOption = true; };
    mkEnableOption =
      _:
      mkOption {
        type = types.bool;
        default = false;
      };
    mkDefault = x: x;
    mkIf = c: v: if c then v else { };
    mkMerge = builtins.foldl' merge { };

    merge =
      a: b:
      if builtins.isList a && builtins.isList b then
        a ++ b
      else if builtins.isString a && builtins.isString b then
        a + b
      else if builtins.isAttrs a && builtins.isAttrs b then
        a // mapAttrs (n: v: if a ? ${n} then merge a.${n} v else v) b
      else
        b;

    types = {
      bool = "bool";
      str = "str";
      port = "port";
      package = "package";
      ints.between = _: _: "int";
      int = "int";
      enum = _: "enum";
      oneOf = _: "one";
      strMatching = _: "str";
      nullOr = t: t;
      listOf = t: { listOf = t; };
      attrsOf = t: { attrsOf = t; };
      either = _: t: { either = t; };
      submodule = m: { submodule = m; };
    };

    # The value with the defaults of its type.
    fill =
      type: name: value:
      if type ? listOf then
        map (fill type.listOf name) value
      else if type ? attrsOf then
        mapAttrs (fill type.attrsOf) value
      else if type ? either then
        (if builtins.isAttrs value then fill type.either name value else value)
      else if type ? submodule then
        submodule type.submodule name value
      else
        value;

    submodule =
      module: name: value:
      let
        m =
          if builtins.isFunction module then
            module {
              inherit name;
              config = filled;
            }
          else
            module;
        filled = tree m.options value;
        config = m.config or { };
      in
      merge filled (filterAttrs (_: v: v != { }) config);

    tree =
      options: value:
      value
      // mapAttrs (
        n: o:
        if !(o.isOption or false) then
          tree o (value.${n} or { })
        else if value ? ${n} then
          fill o.type n value.${n}
        else
          o.default or { }
      ) options;

    eval =
      module: pkgs: settings:
      let
        m = module {
          inherit pkgs config;
          lib = self;
        };
        config = tree m.options settings;
      in
      merge config m.config;
  };
in
self
