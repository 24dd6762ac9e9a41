-- The statement that creates a rule, policy or trigger of a table again, with its state and comment: one row of the role that runs it, and the
-- statement. The search path must be empty. $1: its OID.
SELECT pg_catalog.pg_get_userbyid(c.relowner), s.text
    || CASE WHEN s.state = 'O' THEN ''
        ELSE pg_catalog.format('; ALTER TABLE %I.%I %s %s %I', n.nspname, c.relname,
            CASE s.state WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, s.kind, s.name) END
    || COALESCE(pg_catalog.format('; COMMENT ON %s %I ON %I.%I IS ', s.kind, s.name, n.nspname, c.relname)
        || pg_catalog.quote_literal(s.comment), '')
FROM (
    SELECT 'RULE' AS kind, r.rulename AS name, r.ev_class AS relation, r.ev_enabled AS state,
        pg_catalog.rtrim(pg_catalog.pg_get_ruledef(r.oid), ';') AS text, pg_catalog.obj_description(r.oid, 'pg_rewrite') AS comment
    FROM pg_catalog.pg_rewrite AS r
    WHERE r.oid = $1::pg_catalog.oid
    UNION ALL
    SELECT 'TRIGGER', g.tgname, g.tgrelid, g.tgenabled, pg_catalog.pg_get_triggerdef(g.oid),
        pg_catalog.obj_description(g.oid, 'pg_trigger')
    FROM pg_catalog.pg_trigger AS g
    WHERE g.oid = $1::pg_catalog.oid AND NOT g.tgisinternal
    UNION ALL
    SELECT 'POLICY', p.polname, p.polrelid, 'O',
        pg_catalog.format('CREATE POLICY %I ON %I.%I AS %s FOR %s TO %s', p.polname, n.nspname, c.relname,
            CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
            CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
            (SELECT pg_catalog.string_agg(
                CASE r.role WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.role)) END, ', ')
            FROM pg_catalog.unnest(p.polroles) AS r (role)))
        || COALESCE(' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', '')
        || COALESCE(' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')', ''),
        pg_catalog.obj_description(p.oid, 'pg_policy')
    FROM pg_catalog.pg_policy AS p
    JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE p.oid = $1::pg_catalog.oid
) AS s
JOIN pg_catalog.pg_class AS c ON c.oid = s.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
