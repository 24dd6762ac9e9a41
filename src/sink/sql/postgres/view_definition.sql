-- The statements that create a view or materialized view again, with all that belongs to it: rows of the role that runs a statement, and
-- the statement. The search path must be empty, so that all names are qualified. Materialized views get no rows. $1: the view's OID.
SELECT s.role, s.text
FROM (
    SELECT c.*, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, pg_catalog.pg_get_userbyid(c.relowner) AS owner,
        CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = $1::pg_catalog.oid
) AS v, LATERAL (
    SELECT 1 AS step, 0::pg_catalog.int8 AS place, v.owner AS role, 'CREATE ' || v.kind || ' ' || v.name
        || COALESCE((
            SELECT pg_catalog.format(' USING %I', m.amname) FROM pg_catalog.pg_am AS m WHERE m.oid = v.relam AND v.relkind = 'm'
        ), '')
        || COALESCE((
            SELECT ' WITH (' || pg_catalog.string_agg(pg_catalog.format('%s%I = %L', p.prefix, p.option_name, p.option_value), ', ') || ')'
            FROM (
                SELECT '' AS prefix, option_name, option_value FROM pg_catalog.pg_options_to_table(v.reloptions)
                UNION ALL
                SELECT 'toast.', t.option_name, t.option_value
                FROM pg_catalog.pg_class AS c, pg_catalog.pg_options_to_table(c.reloptions) AS t
                WHERE c.oid = v.reltoastrelid
            ) AS p
        ), '')
        || COALESCE((
            SELECT pg_catalog.format(' TABLESPACE %I', t.spcname) FROM pg_catalog.pg_tablespace AS t WHERE t.oid = v.reltablespace
        ), '')
        || E' AS\n' || pg_catalog.rtrim(pg_catalog.pg_get_viewdef(v.oid), ';')
        || CASE v.relkind WHEN 'm' THEN E'\nWITH NO DATA' ELSE '' END AS text
    UNION ALL
    SELECT 2, a.attnum, v.owner,
        pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', v.name, a.attname,
            pg_catalog.pg_get_expr(d.adbin, d.adrelid))
    FROM pg_catalog.pg_attrdef AS d
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE d.adrelid = v.oid
    UNION ALL
    SELECT 3, a.attnum, v.owner, pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I %s', v.name, a.attname, x.action)
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid, LATERAL (
        SELECT 'SET STATISTICS ' || a.attstattarget AS action WHERE a.attstattarget >= 0
        UNION ALL
        SELECT 'SET STORAGE ' || CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END
        WHERE a.attstorage <> t.typstorage
        UNION ALL
        -- Older servers do not have this column.
        SELECT 'SET COMPRESSION ' || CASE pg_catalog.to_jsonb(a) ->> 'attcompression' WHEN 'p' THEN 'pglz' ELSE 'lz4' END
        WHERE pg_catalog.to_jsonb(a) ->> 'attcompression' IN ('p', 'l')
        UNION ALL
        SELECT 'SET (' || pg_catalog.array_to_string(a.attoptions, ', ') || ')' WHERE a.attoptions IS NOT NULL
    ) AS x
    WHERE a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped AND v.relkind = 'm'
    UNION ALL
    SELECT 4, i.indexrelid, v.owner,
        pg_catalog.format('SET LOCAL default_tablespace = %L; %s; SET LOCAL default_tablespace = ''''', COALESCE(t.spcname, ''),
            pg_catalog.pg_get_indexdef(i.indexrelid))
        || CASE WHEN i.indisclustered THEN pg_catalog.format('; ALTER TABLE %s CLUSTER ON %I', v.name, c.relname) ELSE '' END
        || COALESCE(pg_catalog.format('; COMMENT ON INDEX %I.%I IS ', n.nspname, c.relname)
            || pg_catalog.quote_literal(pg_catalog.obj_description(c.oid, 'pg_class')), '')
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_tablespace AS t ON t.oid = c.reltablespace
    WHERE i.indrelid = v.oid
    UNION ALL
    SELECT 5, e.oid, v.owner, pg_catalog.pg_get_statisticsobjdef(e.oid)
        || COALESCE(pg_catalog.format('; COMMENT ON STATISTICS %I.%I IS ', n.nspname, e.stxname)
            || pg_catalog.quote_literal(pg_catalog.obj_description(e.oid, 'pg_statistic_ext')), '')
    FROM pg_catalog.pg_statistic_ext AS e
    JOIN pg_catalog.pg_namespace AS n ON n.oid = e.stxnamespace
    WHERE e.stxrelid = v.oid
    UNION ALL
    SELECT 6, r.oid, v.owner, pg_catalog.rtrim(pg_catalog.pg_get_ruledef(r.oid), ';')
        || COALESCE(pg_catalog.format('; COMMENT ON RULE %I ON %s IS ', r.rulename, v.name)
            || pg_catalog.quote_literal(pg_catalog.obj_description(r.oid, 'pg_rewrite')), '')
    FROM pg_catalog.pg_rewrite AS r
    WHERE r.ev_class = v.oid AND r.rulename <> '_RETURN'
    UNION ALL
    SELECT 7, g.oid, v.owner, pg_catalog.pg_get_triggerdef(g.oid)
        || COALESCE(pg_catalog.format('; COMMENT ON TRIGGER %I ON %s IS ', g.tgname, v.name)
            || pg_catalog.quote_literal(pg_catalog.obj_description(g.oid, 'pg_trigger')), '')
    FROM pg_catalog.pg_trigger AS g
    WHERE g.tgrelid = v.oid AND NOT g.tgisinternal
    UNION ALL
    SELECT 8, d.objsubid, v.owner,
        CASE d.objsubid WHEN 0 THEN pg_catalog.format('COMMENT ON %s %s IS %L', v.kind, v.name, d.description)
            ELSE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', v.name, a.attname, d.description) END
    FROM pg_catalog.pg_description AS d
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
    WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objoid = v.oid
    UNION ALL
    SELECT 9, l.objsubid, v.owner,
        CASE l.objsubid WHEN 0 THEN pg_catalog.format('SECURITY LABEL FOR %I ON %s %s IS %L', l.provider, v.kind, v.name, l.label)
            ELSE pg_catalog.format('SECURITY LABEL FOR %I ON COLUMN %s.%I IS %L', l.provider, v.name, a.attname, l.label) END
    FROM pg_catalog.pg_seclabel AS l
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = l.objoid AND a.attnum = l.objsubid
    WHERE l.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND l.objoid = v.oid
    UNION ALL
    -- Default privileges of the owner must not add to the grants. A view without grants has those of its owner.
    SELECT 10, 0, v.owner, pg_catalog.format(
        'DO $daplake$ DECLARE g pg_catalog.text; BEGIN '
        'IF %s OR (SELECT relacl IS NOT NULL FROM pg_catalog.pg_class WHERE oid = %L::pg_catalog.regclass) THEN '
        'FOR g IN SELECT DISTINCT CASE a.grantee WHEN 0 THEN ''PUBLIC'' '
        'ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END '
        'FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(COALESCE(c.relacl, pg_catalog.acldefault(''r'', c.relowner))) AS a '
        'WHERE c.oid = %L::pg_catalog.regclass LOOP '
        'EXECUTE pg_catalog.format(''REVOKE ALL ON TABLE %%s FROM %%s'', %L, g); END LOOP; %s END IF; END $daplake$',
        (v.relacl IS NOT NULL)::pg_catalog.text, v.name, v.name, v.name,
        CASE WHEN v.relacl IS NULL
            THEN pg_catalog.format('EXECUTE %L;', pg_catalog.format('GRANT ALL ON TABLE %s TO %I', v.name, v.owner)) ELSE '' END)
    UNION ALL
    SELECT 11, g.place, pg_catalog.pg_get_userbyid(g.grantor), pg_catalog.format('GRANT %s ON TABLE %s TO %s%s', g.privilege, v.name,
        CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
        CASE WHEN g.may_grant THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_catalog.aclexplode(v.relacl) WITH ORDINALITY AS g (grantor, grantee, privilege, may_grant, place)
    UNION ALL
    SELECT 12, a.attnum * 10000 + g.place, pg_catalog.pg_get_userbyid(g.grantor),
        pg_catalog.format('GRANT %s (%I) ON TABLE %s TO %s%s', g.privilege, a.attname, v.name,
            CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
            CASE WHEN g.may_grant THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_catalog.pg_attribute AS a,
        pg_catalog.aclexplode(a.attacl) WITH ORDINALITY AS g (grantor, grantee, privilege, may_grant, place)
    WHERE a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped
) AS s
ORDER BY s.step, s.place
